import Squeezing

/// Members of a recipe that do not go together.
public enum RecipeConflict: Error, Sendable, Hashable {
  /// A member, or this value of it, changes nothing beside another member, or beside this value of that.
  case noEffect(member: String, value: String?, beside: String, itsValue: String?)
  /// A member changes nothing where another one is absent.
  case noEffectWithout(member: String, missing: String)
  /// The budget is a bond that is below the least bond.
  case bondBelowMinimum(bond: Int, minimum: Int)

  /// What is wrong, with the names that the reader knows the members by: `budget.bond` may be `--bond` to him.
  public func text(naming name: (String) -> String) -> String {
    switch self {
    case .noEffect(let member, let value, let beside, let itsValue):
      let parts = [name(member), value, "has no effect with", name(beside), itsValue].compactMap(\.self)
      return parts.joined(separator: " ") + "; leave one of them out"
    case .noEffectWithout(let member, let missing):
      return "\(name(member)) has no effect without \(name(missing)); add that, or leave it out"
    case .bondBelowMinimum(let bond, let minimum):
      return "\(name("budget.bond")) \(bond) is below \(name("minimum_bond")) \(minimum)"
    }
  }
}

extension RecipeConflict: CustomStringConvertible {
  public var description: String { text { "'\($0)'" } }
}

extension ConversionRecipe {
  /// The first conflict between members; nil for a recipe that can be followed as it is.
  ///
  /// - Parameter given: the members, as `criterion` or `selection.sites`, that were written down. Such a member must have
  ///   an effect even with its default value; the others only where their value is not the default.
  public func conflict(given: Set<String> = []) -> RecipeConflict? {
    let plain = ConversionRecipe()
    func isWritten(_ member: String, _ isChanged: Bool) -> Bool { isChanged || given.contains(member) }
    let writesCriterion = isWritten("criterion", criterion != plain.criterion)
    let writesSites = isWritten("selection.sites", selection.sites != plain.selection.sites)
    let writesShapes = isWritten("selection.shapes", !selection.shapes.isEmpty)

    let budgetName: String? =
      switch budget {
      case .bond: "budget.bond"
      case .lossless: "budget.lossless"
      case .ratio, .matrixRatio, .maximumError, .bytes, .matrixBytes, nil: nil
      }
    if let conflict = byteConflict() { return conflict }
    if let budgetName, writesCriterion {
      return .noEffect(member: "criterion", value: nil, beside: budgetName, itsValue: nil)
    }
    if case .bond = budget, structure == .auto, given.contains("structure") {
      return .noEffect(member: "structure", value: "auto", beside: "budget.bond", itsValue: nil)
    }
    if alignment != .auto {
      if let budgetName { return .noEffect(member: "alignment", value: nil, beside: budgetName, itsValue: nil) }
      if criterion == .error {
        return .noEffect(member: "alignment", value: nil, beside: "criterion", itsValue: "error")
      }
      if alignment == .multiples(of: 1), structure == .chain {
        return .noEffect(member: "alignment", value: "1", beside: "structure", itsValue: "chain")
      }
    }
    if case .bond(let bond) = budget, bond < minimumBond {
      return .bondBelowMinimum(bond: bond, minimum: minimumBond)
    }
    if criterion == .error, structure != .chain {
      return .noEffect(member: "criterion", value: "error", beside: "structure", itsValue: structure.rawValue)
    }
    if criterion == .error, metric != nil {
      return .noEffect(member: "criterion", value: "error", beside: "metric", itsValue: nil)
    }
    if let conflict = maskConflict(given: given) { return conflict }
    if basis == .none, !spaces.isEmpty {
      return .noEffect(member: "spaces", value: nil, beside: "basis", itsValue: "none")
    }
    if isWritten("basis", basis != plain.basis || !spaces.isEmpty) {
      if structure != .chain {
        return .noEffect(member: "basis", value: nil, beside: "structure", itsValue: structure.rawValue)
      }
      if budget == .lossless { return .noEffect(member: "basis", value: nil, beside: "budget.lossless", itsValue: nil) }
      if metric == nil { return .noEffectWithout(member: "basis", missing: "metric") }
    }
    if !sharedCentres.isEmpty {
      if let name = budgetName ?? { if case .maximumError = budget { "budget.max_error" } else { nil } }() {
        return .noEffect(member: "shared_centres", value: nil, beside: name, itsValue: nil)
      }
    }
    if !links.isEmpty {
      if let budgetName { return .noEffect(member: "links", value: nil, beside: budgetName, itsValue: nil) }
      if structure == .chain { return .noEffect(member: "links", value: nil, beside: "structure", itsValue: "chain") }
    }
    if depth != plain.depth {
      if structure != .svd {
        return .noEffect(member: "depth", value: nil, beside: "structure", itsValue: structure.rawValue)
      }
      if budget == .lossless { return .noEffect(member: "depth", value: nil, beside: "budget.lossless", itsValue: nil) }
      if !links.isEmpty { return .noEffect(member: "links", value: nil, beside: "depth", itsValue: "\(depth)") }
      if gauge == .spectral || given.contains("gauge") && gauge != .canonical {
        return .noEffect(member: "gauge", value: gauge.rawValue, beside: "depth", itsValue: "\(depth)")
      }
    }
    if structure == .svd {
      let writesSites = writesSites && depth == plain.depth
      for (member, isWritten) in [("selection.sites", writesSites), ("selection.shapes", writesShapes)] where isWritten
      {
        return .noEffect(member: member, value: nil, beside: "structure", itsValue: "svd")
      }
    }
    return nil
  }

  /// Of what a plan by bytes decides itself, or can't reckon with.
  private func byteConflict() -> RecipeConflict? {
    guard budget?.isOfBytes == true else {
      return central != nil && !encodings.isEmpty
        ? .noEffect(member: "central", value: nil, beside: "encodings", itsValue: nil) : nil
    }
    let beside: String = if case .bytes = budget { "budget.bytes" } else { "budget.matrix_bytes" }
    for (member, isThere) in [
      ("encodings", !encodings.isEmpty), ("central", central != nil), ("links", !links.isEmpty),
      ("shared_centres", !sharedCentres.isEmpty),
    ] where isThere {
      return .noEffect(member: member, value: nil, beside: beside, itsValue: nil)
    }
    if criterion == .error { return .noEffect(member: "criterion", value: "error", beside: beside, itsValue: nil) }
    return nil
  }

  private func maskConflict(given: Set<String>) -> RecipeConflict? {
    guard let mask else { return nil }
    if budget == .lossless { return .noEffect(member: "mask", value: nil, beside: "budget.lossless", itsValue: nil) }
    if criterion == .error {
      return .noEffect(member: "criterion", value: "error", beside: "mask", itsValue: nil)
    }
    let writesWeights = mask.weights != .sides || given.contains("mask.weights")
    if metric != nil {
      // With statistics a mask decides what is decomposed, and the zeros are zeros anyhow.
      if mask.source == .zeros { return .noEffect(member: "mask", value: "zeros", beside: "metric", itsValue: nil) }
      if writesWeights { return .noEffect(member: "mask.weights", value: nil, beside: "metric", itsValue: nil) }
    } else if mask.weights == .elements, !links.isEmpty {
      return .noEffect(member: "mask.weights", value: "elements", beside: "links", itsValue: nil)
    }
    return nil
  }
}
