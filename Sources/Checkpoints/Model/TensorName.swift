/// A name as a key of a dictionary or a set: two are equal when their UTF-8 bytes are.
///
/// Swift strings are equal when they are canonically equivalent, so `"é"` may equal a string of other bytes. In a file
/// these are two names. Use this type wherever names of tensors or files are compared.
public struct TensorName: Sendable, Hashable, Comparable, CustomStringConvertible, ExpressibleByStringLiteral {
  /// The name as a string.
  public let text: String

  /// The name that a string stands for, byte by byte.
  public init(_ text: String) { self.text = text }
  public init(stringLiteral text: String) { self.text = text }

  public var description: String { text }

  public static func == (one: TensorName, other: TensorName) -> Bool {
    let (one, other) = (one.text.utf8, other.text.utf8)
    guard one.count == other.count else { return false }
    let isEqual = one.withContiguousStorageIfAvailable { one in
      other.withContiguousStorageIfAvailable { zip(one, $0).allSatisfy { $0 == $1 } }
    }
    return isEqual.flatMap(\.self) ?? one.elementsEqual(other)
  }

  /// In the order of their bytes.
  public static func < (one: TensorName, other: TensorName) -> Bool {
    one.text.utf8.lexicographicallyPrecedes(other.text.utf8)
  }

  public func hash(into hasher: inout Hasher) {
    var text = text
    text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
  }
}
