import TensorNetworks

/// What rounding to integers with feedback costs, as it was measured.
enum IntegerError {
  /// The squared error of an element over its group's squared largest magnitude, where nothing makes up for it.
  static func ofStep(_ integers: IntegerGroups) -> Double {
    let step = 1 / Double(integers.zero)
    return part(integers) / 12 * step * step
  }

  /// Of the step that the largest magnitude asks for: the best one is shorter with few levels and long groups.
  private static func part(_ integers: IntegerGroups) -> Double {
    let parts: [Double]
    switch integers.bits {
    case 8: parts = [1, 1, 1]
    case 6: parts = [0.97, 0.96, 0.95]
    case 5: parts = [0.93, 0.91, 0.88]
    case 4: parts = [0.97, 0.93, 0.88]
    case 3: parts = [0.81, 0.72, 0.63]
    default: parts = [0.59, 0.5, 0.42]
    }
    return parts[LayerProfile.Storage.groups.firstIndex(of: integers.group) ?? 0]
  }

  /// How many times that of the dense matrix the error is where both cores of a factorisation are rounded.
  ///
  /// The medians over the matrices of all-MiniLM-L6-v2 with 3 to 5 bits at 0.35 and 0.6 of their numbers were 4.3 to 5.3 and 2.7 to 3.4.
  static func ofFactors(_ gauge: Gauge) -> Double { gauge == .compact ? 4.8 : 3 }
}

extension LayerProfile.Storage {
  /// Of the dense matrix, relative.
  func squaredError(of integers: IntegerGroups) -> Double? {
    guard let place = Self.groups.firstIndex(of: integers.group), place < groupErrors.count else { return nil }
    return groupErrors[place] * IntegerError.ofStep(integers)
  }
}
