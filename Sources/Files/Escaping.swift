extension Unicode.Scalar {
  /// Whether it does something to a terminal, a line or the order of the text, rather than to stand for itself.
  fileprivate var isUnprintable: Bool {
    switch value {
    case 0x00...0x1F, 0x7F...0x9F, 0x200E...0x200F, 0x2028...0x202E, 0x2066...0x2069, 0xFEFF: true
    default: false
    }
  }
}

/// JSON text as it may be printed: what `escaped` would escape is written as `\u` escapes. (Encoders do so for the first
/// 32 characters only, and all of the others can stand in strings only.) Line ends between the values stay.
package func printableJSON(_ text: String) -> String {
  guard text.unicodeScalars.contains(where: { $0.value >= 0x7F && $0.isUnprintable }) else { return text }
  var result = ""
  for scalar in text.unicodeScalars {
    if scalar.value >= 0x7F, scalar.isUnprintable {
      let digits = String(scalar.value, radix: 16)
      result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
    } else {
      result.unicodeScalars.append(scalar)
    }
  }
  return result
}

/// Text from a file as it may be printed: control characters, line separators and characters that reorder text are
/// written as escapes, and what is longer than any sensible name is cut.
package func escaped(_ text: String, limit: Int = 200) -> String {
  var result = ""
  var count = 0
  for scalar in text.unicodeScalars {
    if count == limit {
      result += "…"
      break
    }
    count += 1
    switch scalar.value {
    case 0x0A: result += "\\n"
    case 0x0D: result += "\\r"
    case 0x09: result += "\\t"
    case _ where scalar.isUnprintable:
      result += "\\u{" + String(scalar.value, radix: 16) + "}"
    default: result.unicodeScalars.append(scalar)
    }
  }
  return result
}
