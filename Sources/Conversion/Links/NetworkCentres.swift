import Checkpoints
import Files
import Recipes
import Squeezing

extension SourceNetwork {
  /// The shared centres of a recipe.
  /// - Throws: `ConversionError` for a glob that matches fewer than two matrices for each centre, matrices of several shapes or
  ///   types, and a matrix that is not to be decomposed, or is tied, linked or centred already.
  func centres(of recipe: ConversionRecipe) throws -> [(centre: SharedCentre, members: [Int])] {
    guard !recipe.sharedCentres.isEmpty else { return [] }
    var owners: [Int: String] = [:]
    for link in try links(of: recipe) { for member in link.members { owners[member] = link.name } }
    return try recipe.sharedCentres.flatMap { rule in
      func refused(_ reason: String) -> ConversionError {
        .badMember(member: "shared_centres", value: rule.glob, reason: reason)
      }
      let glob = try LinkGlob(rule.glob, refused)
      let matched = matrices.indices.compactMap { index in glob.match(matrices[index].name).map { (index, $0) } }
      let numbered = matched.filter { Self.layer(of: $0.1) != nil }
      let found =
        numbered.isEmpty
        ? matched
        : numbered.map { (Self.layer(of: $0.1)?.number ?? 0, $0) }.sorted { ($0.0, $0.1.0) < ($1.0, $1.1.0) }.map(\.1)
      guard let first = found.first.map({ matrices[$0.0] }) else {
        throw ConversionError.globMatchesNothing(member: "shared_centres", glob: rule.glob, path: checkpoint.path)
      }
      guard found.count >= 2 * rule.centres else {
        throw refused(
          "matches \(found.count) matri\(found.count == 1 ? "x" : "ces"); a shared central core needs at least two")
      }
      guard first.shape.siteCount > 2, !first.shape.isFactored else {
        throw refused("makes chains of the factors \(first.shape); a shared central core needs sites on both sides")
      }
      if let rank = rule.residualRank, rank >= min(first.rows, first.columns) {
        throw refused(
          "has matrices of \(first.rows) × \(first.columns); a residual of rank \(rank) would be as large as they are: choose a smaller rank"
        )
      }
      for (index, _) in found {
        let matrix = matrices[index]
        let name = escaped(matrix.name)
        guard
          (matrix.rows, matrix.columns, matrix.shape, matrix.tensor.dtype)
            == (first.rows, first.columns, first.shape, first.tensor.dtype)
        else {
          throw refused(
            "matches '\(escaped(first.name))', \(first.rows) × \(first.columns) \(first.tensor.dtype.rawValue), and "
              + "'\(name)', \(matrix.rows) × \(matrix.columns) \(matrix.tensor.dtype.rawValue); a central core is shared "
              + "by matrices of one shape and type")
        }
        if let other = owners.updateValue(rule.glob, forKey: index) {
          throw refused("matches '\(name)', which '\(escaped(other))' matches already")
        }
        if let tie = recipe.ties.first(where: { matches($0, matrix.name) }) {
          throw refused("matches '\(name)', which '\(escaped(tie))' ties to the bonds of others")
        }
      }
      return (0..<rule.centres).map { centre in
        let members = found[(centre * found.count / rule.centres)..<((centre + 1) * found.count / rule.centres)]
        return (
          SharedCentre(
            name: Self.commonName(of: members.map(\.1)) + ".centre", members: members.map { matrices[$0.0].name },
            residualRank: rule.residualRank),
          members.map(\.0)
        )
      }
    }
  }
}
