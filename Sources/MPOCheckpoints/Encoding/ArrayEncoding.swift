import Checkpoints
import LinearAlgebra
import Recipes
import TensorNetworks

/// How the elements of an array, a core or a dense tensor, are kept: the one place that knows which entries an array has in
/// the shards, how its elements become their bytes, and how they are read again (FORMAT.md, "Encodings").
///
/// A new encoding is a case of `Values`, its JSON below, and a branch in each of the functions that switch over it.
public struct ArrayEncoding: Sendable, Hashable {
  /// What the numbers become.
  public enum Values: Sendable, Hashable {
    /// Elements of a dtype.
    case plain(DType)
    /// Bytes, times scales of the shape `scaleShape` that broadcast.
    case scaled(scaleShape: [Int])
    /// Integers of a few bits, the values as a matrix of this many columns, with a scale for each group in a row.
    case grouped(IntegerGroups, columns: Int)
  }

  /// Which rows or columns of a core are the identity and not stored.
  public enum Pivots: String, Sendable, Hashable, Codable {
    /// d' rows of the core as a matrix `[d·i·j, d']`.
    case left
    /// d columns of the core as a matrix `[d, i·j·d']`.
    case right
  }

  /// What the numbers become.
  public var values: Values
  /// nil for an array that is stored whole.
  public var pivots: Pivots?

  /// An encoding of values; nil for an array that is stored whole.
  public init(_ values: Values, pivots: Pivots? = nil) {
    self.values = values
    self.pivots = pivots
  }

  /// Elements of a dtype, all of them.
  public static func plain(_ dtype: DType) -> ArrayEncoding { ArrayEncoding(.plain(dtype)) }

  /// Bytes with scales, for a whole array of this shape.
  public static func scaled(shape: [Int]) -> ArrayEncoding {
    ArrayEncoding(.scaled(scaleShape: ScaledValues.scaleShape(of: shape)))
  }

  /// What a new operator's core is stored in.
  ///
  /// - Parameters:
  ///   - pivots: of an auxiliary core in its gauge.
  ///   - dtype: of plain values.
  ///   - central: what the recipe says of central cores; nil for plain values.
  init(role: CoreRecord.Role, shape: [Int], pivots: Pivots?, dtype: DType, central: CentralEncoding?) {
    self = ArrayEncoding(.plain(dtype), pivots: pivots)
    guard role == .central, let central else { return }
    switch central {
    case .int8: self = .scaled(shape: shape)
    }
  }

  /// Integers for an array of this shape.
  public static func grouped(_ integers: IntegerGroups, shape: [Int], pivots: Pivots? = nil) -> ArrayEncoding {
    let columns = IntegerGroups.columns(of: ArrayEncoding(.plain(.f32), pivots: pivots).valueShape(of: shape) ?? [0])
    return ArrayEncoding(.grouped(integers, columns: columns), pivots: pivots)
  }

  /// The same encoding of an array of another shape or with other pivots.
  func adapted(to shape: [Int], pivots: Pivots?) -> ArrayEncoding {
    var result = ArrayEncoding(values, pivots: pivots)
    switch values {
    case .plain: break
    case .scaled:
      // Scales are of the values that are stored, which pivots leave two axes of.
      guard let values = result.valueShape(of: shape) else { return ArrayEncoding(.plain(.f32), pivots: pivots) }
      result.values = ArrayEncoding.scaled(shape: values).values
    case .grouped(let integers, _):
      guard result.valueShape(of: shape) != nil else { return ArrayEncoding(.plain(.f32), pivots: pivots) }
      result = .grouped(integers, shape: shape, pivots: pivots)
    }
    return result
  }

  /// The dtype of the values as they are stored.
  public var valueDType: DType {
    switch values {
    case .plain(let dtype): dtype
    case .scaled: .i8
    case .grouped: .u8
    }
  }

  /// The integers that values are rounded to; nil for others.
  public var integers: IntegerGroups? {
    if case .grouped(let integers, _) = values { integers } else { nil }
  }

  /// Whether elements can only be computed with in double precision.
  public var needsDoublePrecision: Bool { values == .plain(.f64) }

  /// The encoding in a few characters, for people.
  public var description: String {
    switch values {
    case .plain(let dtype): dtype.rawValue
    case .scaled: "I8"
    case .grouped(let integers, _): integers.description
    }
  }

  // MARK: - Entries

  /// Sizes of a pivoted array as a matrix: `[all, count]`, of which `count` rows are the identity; nil for a whole array.
  func pivotSides(of shape: [Int]) -> (all: Int, count: Int)? {
    guard let pivots, shape.count == 4 else { return nil }
    let site = shape[1] * shape[2]
    return pivots == .left ? (shape[0] * site, shape[3]) : (site * shape[3], shape[0])
  }

  /// The shape of the values that are stored of an array; nil when there are none.
  func valueShape(of shape: [Int]) -> [Int]? {
    guard let (all, count) = pivotSides(of: shape) else { return shape }
    guard all > count else { return nil }
    return pivots == .left ? [all - count, count] : [count, all - count]
  }

  /// How many values are stored of an array; neither scales nor pivots are counted.
  public func valueCount(of shape: [Int]) -> Int { valueShape(of: shape)?.reduce(1, *) ?? 0 }

  /// The entries of an array in the shards, unpacked: values, then scales, then pivots.
  public func entries(of name: String, shape: [Int]) -> [TensorInfo] {
    guard let valueShape = valueShape(of: shape) else { return [] }
    var entries: [TensorInfo]
    switch values {
    case .plain: entries = [TensorInfo(name: name, dtype: valueDType, shape: valueShape)]
    case .scaled(let scaleShape):
      entries = [
        TensorInfo(name: name, dtype: valueDType, shape: valueShape),
        TensorInfo(name: name + ".scales", dtype: .f32, shape: scaleShape),
      ]
    case .grouped(let integers, let columns):
      let rows = valueShape.reduce(1, *) / columns
      entries = [
        TensorInfo(name: name, dtype: valueDType, shape: [rows, integers.rowBytes(columns: columns)]),
        TensorInfo(name: name + ".scales", dtype: .f16, shape: [rows, integers.scaleCount(columns: columns)]),
      ]
    }
    if let (all, count) = pivotSides(of: shape) {
      entries.append(TensorInfo(name: name + ".pivots", dtype: Self.indexDType(below: all), shape: [count]))
    }
    return entries
  }

  /// The smallest unsigned type that holds every index below `count`.
  static func indexDType(below count: Int) -> DType {
    count <= 1 << 8 ? .u8 : count <= 1 << 16 ? .u16 : .u32
  }

  /// Why an array of this role and shape can't have the encoding; nil when it can.
  func problem(role: CoreRecord.Role?, shape: [Int]) -> String? {
    let isIndex = role == .permutation
    switch values {
    case .plain(let dtype):
      if isIndex {
        guard [.u8, .u16, .u32, .i64].contains(dtype) else {
          return "\(dtype.rawValue) can't be the dtype of a permutation"
        }
      } else if role != nil, !dtype.isDecomposable {
        return "\(dtype.rawValue) can't be the dtype of a core"
      }
    case .scaled(let scaleShape):
      guard !isIndex else { return "a permutation has no scales" }
      guard shape.count <= 4 else { return "scales are for at most four axes" }
      if let valueShape = valueShape(of: shape) {
        guard scaleShape.count == valueShape.count, zip(scaleShape, valueShape).allSatisfy({ $0 == 1 || $0 == $1 })
        else { return "scales of \(scaleShape) do not broadcast to \(valueShape)" }
      }
    case .grouped(_, let columns):
      guard !isIndex else { return "a permutation has no scales" }
      let count = valueCount(of: shape)
      guard count == 0 || columns > 0 && count % columns == 0 else {
        return "\(count) values are not a matrix of \(columns) columns"
      }
    }
    guard pivots != nil else { return nil }
    guard role == .auxiliary else { return "only auxiliary cores have pivots" }
    guard let (all, count) = pivotSides(of: shape), count <= all else {
      return "a core of \(shape) has no room for its pivots"
    }
    return nil
  }

  // MARK: - Writing

  /// Rounds an array and writes its entries.
  ///
  /// - Parameters:
  ///   - elements: of the whole array, row-major; those of pivot rows or columns are the identity.
  ///   - pivots: the rows or columns, ascending, for a pivoted array.
  ///   - rounded: the stored values as integers, where they are chosen already; else each is rounded to the nearest.
  ///   - write: takes the bytes of an entry.
  /// - Returns: the elements as they are stored.
  /// - Throws: `ArrayEncodingError` for values that the encoding can't hold, and what `write` throws.
  func encode<Scalar: CheckpointScalar>(
    _ elements: [Scalar], pivots: [Int]?, rounded: RoundedMatrix? = nil, of name: String, shape: [Int],
    write: (UnsafeRawBufferPointer, TensorInfo) throws -> Void
  ) throws -> [Scalar] {
    let entries = entries(of: name, shape: shape)
    guard let first = entries.first else { return elements }
    guard let pivots else { return try encodeValues(elements, rounded, first, entries, write) }
    let layout = PivotLayout(shape: shape, side: self.pivots ?? .left, pivots: pivots)
    let stored = try encodeValues(layout.rest(of: elements), rounded, first, entries, write)
    if let entry = entries.last { try Self.indexBytes(pivots, entry.dtype).withUnsafeBytes { try write($0, entry) } }
    return layout.whole(stored)
  }

  private func encodeValues<Scalar: CheckpointScalar>(
    _ elements: [Scalar], _ rounded: RoundedMatrix?, _ entry: TensorInfo, _ entries: [TensorInfo],
    _ write: (UnsafeRawBufferPointer, TensorInfo) throws -> Void
  ) throws -> [Scalar] {
    switch values {
    case .plain(let dtype):
      return try elements.withUnsafeBufferPointer { buffer in
        try Scalar.withRounded(buffer, to: dtype) { bytes in
          try write(bytes, entry)
          if dtype == Scalar.dtype { return elements }
          return try Scalar.withElements(bytes, of: dtype) { Array($0) }
        }
      }
    case .scaled(let scaleShape):
      guard let scaled = ScaledValues(elements, shape: entry.shape, scaleShape: scaleShape) else {
        throw ArrayEncodingError.scaleOutOfRange
      }
      try scaled.bytes.withUnsafeBytes { try write($0, entry) }
      try scaled.scales.withUnsafeBytes { try write($0, entries[1]) }
      return scaled.elements()
    case .grouped(let integers, let columns):
      guard elements.withUnsafeBufferPointer({ Scalar.squaredNorm($0) }).isFinite else {
        throw ArrayEncodingError.scaleOutOfRange
      }
      var given = rounded
      if given?.integers != integers || given?.columns != columns || given?.codes.count != elements.count {
        given = nil
      }
      let rounded =
        given
        ?? RoundedMatrix(
          rounding: Matrix(rows: elements.count / columns, columns: columns, elements: elements).converted(
            to: Float.self),
          to: integers)
      guard rounded.scales.allSatisfy(\.isFinite) else { throw ArrayEncodingError.scaleOutOfRange }
      try rounded.packedCodes.withUnsafeBytes { try write($0, entry) }
      try rounded.scales.map { Float16($0) }.withUnsafeBytes { try write($0, entries[1]) }
      return rounded.matrix(as: Scalar.self).elements
    }
  }

  static func indexBytes(_ indices: [Int], _ dtype: DType) -> [UInt8] {
    func bytes<Index: FixedWidthInteger>(_: Index.Type) -> [UInt8] {
      indices.flatMap { index in withUnsafeBytes(of: Index(index).littleEndian) { Array($0) } }
    }
    return switch dtype {
    case .u8: bytes(UInt8.self)
    case .u16: bytes(UInt16.self)
    case .u32: bytes(UInt32.self)
    default: bytes(Int64.self)
    }
  }

  // MARK: - Reading

  /// Reads the elements of a whole array, widened exactly.
  ///
  /// - Parameter read: calls its argument with the bytes of an entry.
  /// - Throws: `ArrayEncodingError` for scales and pivots that are not possible, and what `read` throws.
  func decode<Scalar: CheckpointScalar>(
    _ name: String, shape: [Int], as type: Scalar.Type = Scalar.self,
    read: (TensorInfo, (UnsafeRawBufferPointer) throws -> [Scalar]) throws -> [Scalar]
  ) throws -> [Scalar] {
    let entries = entries(of: name, shape: shape)
    guard let first = entries.first else { return PivotLayout.identity(pivotSides(of: shape)?.count ?? 0) }
    let stored: [Scalar]
    switch values {
    case .plain(let dtype): stored = try read(first) { try Scalar.withElements($0, of: dtype) { Array($0) } }
    case .scaled(let scaleShape):
      let scales = try read(entries[1]) { try Scalar.withElements($0, of: .f32) { Array($0) } }
      guard scales.allSatisfy({ $0.isFinite && $0 >= 0 }) else { throw ArrayEncodingError.badScale }
      stored = try read(first) { bytes in
        ScaledValues(
          bytes: Array(bytes.bindMemory(to: Int8.self)), shape: first.shape, scaleShape: scaleShape,
          scales: scales.map { Float($0) }
        ).elements()
      }
    case .grouped(let integers, let columns):
      let scales = try read(entries[1]) { try Scalar.withElements($0, of: .f16) { Array($0) } }
      guard scales.allSatisfy(\.isFinite) else { throw ArrayEncodingError.infiniteScale }
      stored = try read(first) { bytes in
        RoundedMatrix(
          integers: integers, columns: columns, packedCodes: bytes, scales: scales.map { Float($0) }
        ).matrix(as: Scalar.self).elements
      }
    }
    guard let side = pivots, let entry = entries.last, let (all, count) = pivotSides(of: shape) else { return stored }
    // A number below 2^32 is exact in double precision, and the callback gives elements of one type only.
    var indices: [Int] = []
    _ = try read(entry) { bytes in
      indices = Self.indices(bytes, entry.dtype)
      return []
    }
    guard indices.count == count, (indices.first ?? 0) >= 0, (indices.last ?? 0) < all,
      zip(indices, indices.dropFirst()).allSatisfy({ $0 < $1 })
    else { throw ArrayEncodingError.badPivots }
    return PivotLayout(shape: shape, side: side, pivots: indices).whole(stored)
  }

  /// Unsigned integers, or those of I64 (negative ones stay so).
  static func indices(_ bytes: UnsafeRawBufferPointer, _ dtype: DType) -> [Int] {
    func indices<Index: FixedWidthInteger>(_: Index.Type) -> [Int] {
      (0..<bytes.count / MemoryLayout<Index>.size).map { place in
        Int(
          truncatingIfNeeded: Index(
            littleEndian: bytes.loadUnaligned(fromByteOffset: place * MemoryLayout<Index>.size, as: Index.self)))
      }
    }
    return switch dtype {
    case .u8: indices(UInt8.self)
    case .u16: indices(UInt16.self)
    case .u32: indices(UInt32.self)
    default: indices(Int64.self)
    }
  }
}

/// Why elements can't be kept, or read, in an encoding.
enum ArrayEncodingError: Error, Sendable, Equatable, CustomStringConvertible {
  case scaleOutOfRange
  case badScale
  case infiniteScale
  case badPivots

  var description: String {
    switch self {
    case .scaleOutOfRange: "has an element that is not finite or too large for a scale"
    case .badScale: "has a scale that is negative or not finite"
    case .infiniteScale: "has a scale that is not finite"
    case .badPivots: "has pivots that are not ascending or outside of the core"
    }
  }
}

extension ArrayEncoding: Codable {
  enum CodingKeys: String, CodingKey {
    case kind, dtype, bits, group, columns, pivots
    case scaleShape = "scale_shape"
  }

  private enum Kind: String, Codable { case plain, scaled, grouped }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    switch try container.decode(Kind.self, forKey: .kind) {
    case .plain: values = .plain(try container.decode(DType.self, forKey: .dtype))
    case .scaled:
      let bits = try container.decode(Int.self, forKey: .bits)
      guard bits == 8 else {
        throw DecodingError.dataCorruptedError(
          forKey: .bits, in: container, debugDescription: "must be 8, not \(bits)")
      }
      values = .scaled(scaleShape: try container.decode([Int].self, forKey: .scaleShape))
    case .grouped:
      let bits = try container.decode(Int.self, forKey: .bits)
      let group = try container.decode(Int.self, forKey: .group)
      guard let integers = IntegerGroups(bits: bits, group: group) else {
        throw DecodingError.dataCorruptedError(
          forKey: .bits, in: container,
          debugDescription: "integers of \(bits) bits in groups of \(group) are not known to this version")
      }
      values = .grouped(integers, columns: try container.decode(Int.self, forKey: .columns))
    }
    pivots = try container.decodeIfPresent(Pivots.self, forKey: .pivots)
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    switch values {
    case .plain(let dtype):
      try container.encode(Kind.plain, forKey: .kind)
      try container.encode(dtype, forKey: .dtype)
    case .scaled(let scaleShape):
      try container.encode(Kind.scaled, forKey: .kind)
      try container.encode(8, forKey: .bits)
      try container.encode(scaleShape, forKey: .scaleShape)
    case .grouped(let integers, let columns):
      try container.encode(Kind.grouped, forKey: .kind)
      try container.encode(integers.bits, forKey: .bits)
      try container.encode(integers.group, forKey: .group)
      try container.encode(columns, forKey: .columns)
    }
    try container.encodeIfPresent(pivots, forKey: .pivots)
  }
}
