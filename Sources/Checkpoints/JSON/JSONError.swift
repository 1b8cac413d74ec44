/// Where and why a text is not the JSON that was expected.
package struct JSONError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The offset of the offending byte from the start of the text.
  package let offset: Int
  package let reason: String

  package init(offset: Int, reason: String) {
    self.offset = offset
    self.reason = reason
  }

  package var description: String { "\(reason) at byte \(offset)" }
}
