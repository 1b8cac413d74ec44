/// `text` as a JSON string with its quotes.
///
/// - Parameter asciiOnly: Writes everything beyond ASCII as `\u` escapes, as Python's `json.dumps` does by default.
package func jsonString(_ text: String, asciiOnly: Bool = false) -> String {
  var result = "\""
  func hex(_ unit: UInt16) -> String {
    let digits = String(unit, radix: 16)
    return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
  }
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"": result += "\\\""
    case "\\": result += "\\\\"
    case "\n": result += "\\n"
    case "\r": result += "\\r"
    case "\t": result += "\\t"
    case "\u{8}": result += "\\b"
    case "\u{C}": result += "\\f"
    default:
      if scalar.value < 0x20 || (asciiOnly && scalar.value >= 0x7F) {
        for unit in scalar.utf16 { result += hex(unit) }
      } else {
        result.unicodeScalars.append(scalar)
      }
    }
  }
  return result + "\""
}
