/// Why a network can't be planned as asked.
public enum SqueezeError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The whole checkpoint can't become that small; `smallest` is the ratio that it can.
  case ratioOutOfReach(asked: Double, smallest: Double)
  /// The matrices can't become that small; `smallest` is the ratio that they can.
  case matrixRatioOutOfReach(asked: Double, smallest: Double)
  /// The checkpoint, or its matrices, can't become that small; `smallest` and `whole` are bytes.
  case bytesOutOfReach(asked: Budget.ByteLimit, smallest: Int, whole: Int, ofMatrices: Bool)
  /// What the profile says of a layer contradicts itself.
  case inconsistentProfile(layer: String)
  /// The parameters of the network do not add up.
  case inconsistentTotals
  /// The profile of a layer was made for another structure or budget, and has not what this one needs.
  case profileLacks(LayerProfile.Measurement, layer: String)
  /// Two tied matrices are not split in the same way.
  case tiedShapesDiffer(String, String)
  /// Every bond should be at most one and at least the other.
  case minimumBondAboveBond(minimum: Int, bond: Int)

  public var description: String {
    switch self {
    case .ratioOutOfReach(let asked, let smallest):
      "ratio \(asked) can't be reached: at the smallest bonds the checkpoint still has "
        + "\((smallest * 1e4).rounded(.up) / 1e4) of its parameters; choose a larger ratio, or decompose more matrices"
    case .matrixRatioOutOfReach(let asked, let smallest):
      "matrix ratio \(asked) can't be reached: at the smallest bonds the matrices still have "
        + "\((smallest * 1e4).rounded(.up) / 1e4) of their parameters; choose a larger ratio, or a smaller minimum bond"
    case .bytesOutOfReach(let asked, let smallest, let whole, let ofMatrices):
      "\(asked) of the \(ofMatrices ? "matrices' " : "")bytes can't be reached: the smallest possible size is \(smallest) bytes, "
        + "\((Double(smallest) / Double(max(1, whole)) * 1e4).rounded(.up) / 1e4) of \(whole); choose a larger size"
        + (ofMatrices ? "" : ", or decompose more matrices")
    case .inconsistentProfile(let layer):
      "the profile of '\(layer)' contradicts itself; make the profile again"
    case .inconsistentTotals:
      "the profile's parameters do not add up to those of its matrices; make the profile again"
    case .profileLacks(let part, let layer):
      "the profile has no \(part) of '\(layer)'; make the profile again for this structure and budget"
    case .tiedShapesDiffer(let a, let b):
      "'\(a)' and '\(b)' are tied but have different shapes; tie matrices of one shape"
    case .minimumBondAboveBond(let minimum, let bond):
      "no bond can be at most \(bond) and at least \(minimum); choose a bond of \(minimum) or more, or lower the "
        + "minimum"
    }
  }
}
