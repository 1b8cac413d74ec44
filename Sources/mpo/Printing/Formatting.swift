import Glibc
import TensorNetworks

/// `1234567` as `1,234,567`.
func grouped(_ number: Int) -> String {
  let digits = String(number.magnitude)
  var result = ""
  for (index, digit) in digits.enumerated() {
    if index > 0, (digits.count - index) % 3 == 0 { result.append(",") }
    result.append(digit)
  }
  return (number < 0 ? "-" : "") + result
}

/// A byte count with a decimal unit: `90.9 MB`.
func bytes(_ count: Int) -> String {
  var value = Double(count)
  for unit in ["B", "kB", "MB", "GB"] {
    if value < 1000 { return unit == "B" ? "\(count) B" : fixed(value, value < 10 ? 2 : 1) + " " + unit }
    value /= 1000
  }
  return fixed(value, 2) + " TB"
}

/// A number with so many decimals.
func fixed(_ value: Double, _ decimals: Int) -> String {
  var buffer = [CChar](repeating: 0, count: 400)
  let count = withVaList([Int32(decimals), value]) { vsnprintf(&buffer, buffer.count, "%.*f", $0) }
  return String(decoding: buffer.prefix(Int(max(0, count))).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// An error or another small positive number: `0.3127`, `4.1e-07`, `–` for none.
func small(_ value: Double?) -> String {
  guard let value else { return "–" }
  if value == 0 || value >= 1e-3 { return fixed(value, 4) }
  var buffer = [CChar](repeating: 0, count: 64)
  let count = withVaList([value]) { vsnprintf(&buffer, buffer.count, "%.1e", $0) }
  return String(decoding: buffer.prefix(Int(max(0, count))).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// `[384, 1536]` as `384×1536`; a scalar as `scalar`.
func sizes(_ shape: [Int]) -> String {
  shape.isEmpty ? "scalar" : shape.map(String.init).joined(separator: "×")
}

/// `[12, 192]` as `12,192`.
func list(_ numbers: [Int]) -> String { numbers.map(String.init).joined(separator: ",") }
