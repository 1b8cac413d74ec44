import Glibc

/// `1234567` as `1,234,567`.
package func grouped(_ number: Int) -> String {
  let digits = String(number.magnitude)
  var result = ""
  for (index, digit) in digits.enumerated() {
    if index > 0, (digits.count - index) % 3 == 0 { result.append(",") }
    result.append(digit)
  }
  return (number < 0 ? "-" : "") + result
}

/// A sum as a whole number; what no integer holds is cut.
package func grouped(_ number: Double) -> String { grouped(Int(min(max(number, -9e18), 9e18).rounded())) }

/// A byte count with a decimal unit: `90.9 MB`.
package func bytes(_ count: Int) -> String {
  var value = Double(count)
  for unit in ["B", "kB", "MB", "GB"] {
    if value < 1000 {
      return unit == "B" ? "\(count) B" : fixed(value, value < 10 ? 2 : 1) + " " + unit
    }
    value /= 1000
  }
  return fixed(value, 2) + " TB"
}

/// A number with so many decimals.
package func fixed(_ value: Double, _ decimals: Int) -> String {
  var buffer = [CChar](repeating: 0, count: 400)
  let count = withVaList([Int32(decimals), value]) { vsnprintf(&buffer, buffer.count, "%.*f", $0) }
  return String(
    decoding: buffer.prefix(Int(max(0, count))).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// An error or another small positive number: `0.3127`, `4.1e-07`, `–` for none.
package func small(_ value: Double?) -> String {
  guard let value else { return "–" }
  if value == 0 || value >= 1e-3 { return fixed(value, 4) }
  var buffer = [CChar](repeating: 0, count: 64)
  let count = withVaList([value]) { vsnprintf(&buffer, buffer.count, "%.1e", $0) }
  return String(
    decoding: buffer.prefix(Int(max(0, count))).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// `[384, 1536]` as `384×1536`; a scalar as `scalar`.
package func sizes(_ shape: [Int]) -> String {
  shape.isEmpty ? "scalar" : shape.map(String.init).joined(separator: "×")
}

/// `[12, 192]` as `12,192`.
package func list(_ numbers: [Int]) -> String { numbers.map(String.init).joined(separator: ",") }

/// A time as people say it: `40 s`, `3 min`, `2 h 10 min`.
package func duration(_ seconds: Double) -> String {
  guard seconds.isFinite, seconds < 1e8 else { return "more than a year" }
  if seconds < 1 { return "1 s" }
  if seconds < 100 { return "\(Int(seconds.rounded(.up))) s" }
  let minutes = Int((seconds / 60).rounded(.up))
  return minutes < 100 ? "\(minutes) min" : "\(minutes / 60) h \(minutes % 60) min"
}
