extension ConversionRecipe {
  /// Makes the structure `chain` where it was not written down and something was that only chains have: sites, shapes,
  /// bonds, the published steps.
  ///
  /// - Parameter given: the members, as `structure` or `selection.sites`, that were written down.
  public mutating func chooseStructure(given: Set<String>) {
    guard structure == .auto, !given.contains("structure") else { return }
    let writesSites = !given.isDisjoint(with: ["selection.sites", "selection.shapes"])
    let hasBond = if case .bond = budget { true } else { false }
    if writesSites || hasBond || criterion == .error { structure = .chain }
  }
}
