import Checkpoints
import Files
import Recipes
import Squeezing

/// Matrices of a network that a recipe links.
struct MatrixLink: Sendable {
  /// Of the operator that they would be ranges of: what they have in common, and in braces what they differ in.
  let name: String
  /// Indices into the network's matrices, in the order in which they are stacked.
  let members: [Int]
  let stacking: LinkProfile.Stacking
}

extension SourceNetwork {
  /// The links of a recipe.
  /// - Throws: `ConversionError` for a glob that links nothing, matrices that have no side in common, and a matrix that is not
  ///   to be decomposed, or is tied or linked already.
  func links(of recipe: ConversionRecipe) throws -> [MatrixLink] {
    guard !recipe.links.isEmpty else { return [] }
    var places: [TensorName: Int] = [:]
    for (index, matrix) in matrices.enumerated() { places[TensorName(matrix.name)] = index }
    var owners: [Int: String] = [:]
    return try recipe.links.flatMap { rule in
      func refused(_ reason: String) -> ConversionError {
        .badMember(member: "links", value: rule.glob, reason: reason)
      }
      let glob = try LinkGlob(rule.glob, refused)
      guard glob.hasBraces || rule.layers != nil else {
        throw refused(
          "has no braces; write them around the part in which the names differ, as in 'layers.*.{q,k}.weight'")
      }
      func match(_ name: String) -> [LinkGlob.Segment]? {
        glob.match(name).flatMap { rule.layers == nil || Self.layer(of: $0) != nil ? $0 : nil }
      }
      for tensor in checkpoint.tensors where places[tensor.key] == nil && match(tensor.name) != nil {
        if let reason = reasonAgainst(tensor) { throw refused("matches '\(escaped(tensor.name))', which \(reason)") }
      }
      let found = matrices.indices.compactMap { index in match(matrices[index].name).map { (index, $0) } }
      guard let first = found.first else {
        if rule.layers != nil, matrices.contains(where: { glob.match($0.name) != nil }) {
          throw refused("has no star that stands for the number of a layer, as in 'layers.*.up_proj.weight'")
        }
        throw ConversionError.globMatchesNothing(member: "links", glob: rule.glob, path: checkpoint.path)
      }
      let groups = rule.layers.map { runs(of: found, length: $0) } ?? grouped(found)
      let linked = groups.filter { $0.count > 1 }
      guard !linked.isEmpty else {
        throw refused(
          "links nothing: '\(escaped(matrices[first.0].name))' has no other matrix beside it that differs "
            + (rule.layers == nil ? "in the braces alone" : "in the number of the layer alone"))
      }
      for (index, _) in linked.joined() {
        let name = escaped(matrices[index].name)
        if let other = owners.updateValue(rule.glob, forKey: index) {
          throw refused("links '\(name)', which '\(escaped(other))' links already")
        }
        if let tie = recipe.ties.first(where: { matches($0, matrices[index].name) }) {
          throw refused("links '\(name)', which '\(escaped(tie))' ties to the bonds of others")
        }
      }
      return try linked.map { group in
        MatrixLink(
          name: Self.commonName(of: group.map(\.1)), members: group.map(\.0),
          stacking: try stacking(of: group.map { matrices[$0.0] }, rule.shares, refused))
      }
    }
  }

  /// Why a tensor that is not to be decomposed can't be linked; nil for what is no matrix.
  private func reasonAgainst(_ tensor: TensorInfo) -> String? {
    guard tensor.shape.count == 2, WeightMatrix.sides(of: tensor) != nil, kept.reason(for: tensor) == nil else {
      return nil
    }
    if let other = ties[tensor.key] { return "is the same tensor as '\(escaped(other.name))'" }
    return "is not decomposed: it is excluded, not included or too small; link only matrices that are decomposed"
  }

  private typealias Found = (Int, [LinkGlob.Segment])

  /// By what is not in the braces, in the order of the checkpoint.
  private func grouped(_ found: [Found]) -> [[Found]] {
    var places: [[[UInt8]]: Int] = [:]
    var groups: [[Found]] = []
    for item in found {
      let key = item.1.filter { $0.kind != .braces }.map(\.bytes)
      if let place = places[key] {
        groups[place].append(item)
      } else {
        places[key] = groups.count
        groups.append([item])
      }
    }
    return groups
  }

  /// The place of the first wildcard, and the number it stands for.
  static func layer(of name: [LinkGlob.Segment]) -> (place: Int, number: Int)? {
    name.firstIndex { $0.kind == .wildcard }.flatMap { place in Int(name[place].text).map { (place, $0) } }
  }

  /// By everything but the number of the layer; in runs of neighbours.
  private func runs(of found: [Found], length: Int) -> [[Found]] {
    var layers: [[[UInt8]]: [(number: Int, item: Found)]] = [:]
    var keys: [[[UInt8]]] = []
    for item in found {
      guard let (place, number) = Self.layer(of: item.1) else { continue }
      var rest = item.1.map(\.bytes)
      rest[place] = []
      if layers[rest] == nil { keys.append(rest) }
      layers[rest, default: []].append((number, item))
    }
    return keys.flatMap { key -> [[Found]] in
      let sorted = (layers[key] ?? []).sorted { $0.number < $1.number }.map(\.item)
      return stride(from: 0, to: sorted.count, by: length).map { Array(sorted[$0..<min($0 + length, sorted.count)]) }
    }
  }

  private func stacking(
    of members: [WeightMatrix], _ side: LinkRule.Side?, _ refused: (String) -> ConversionError
  ) throws -> LinkProfile.Stacking {
    let first = members[0]
    for member in members {
      if member.tensor.dtype != first.tensor.dtype {
        throw refused(
          "links '\(escaped(first.name))' (\(first.tensor.dtype.rawValue)) and '\(escaped(member.name))' "
            + "(\(member.tensor.dtype.rawValue)); linked matrices have one type")
      }
      if member.info.orientation != first.info.orientation {
        throw refused(
          "links '\(escaped(first.name))' and '\(escaped(member.name))', whose inputs are on different axes")
      }
    }
    let sameRows = members.allSatisfy { $0.rows == first.rows }
    let sameColumns = members.allSatisfy { $0.columns == first.columns }
    let (inputs, outputs): (LinkProfile.Stacking, LinkProfile.Stacking) =
      first.info.orientation == .outputInput ? (.rows, .columns) : (.columns, .rows)
    func fits(_ stacking: LinkProfile.Stacking) -> Bool { stacking == .rows ? sameColumns : sameRows }
    let wanted = (side.map { [$0] } ?? LinkRule.Side.allCases).map { $0 == .inputs ? inputs : outputs }
    if let stacking = wanted.first(where: fits) { return stacking }
    let other = members.first { ($0.rows, $0.columns) != (first.rows, first.columns) } ?? first
    throw refused(
      "links '\(escaped(first.name))', \(first.rows) × \(first.columns), and '\(escaped(other.name))', \(other.rows) × "
        + "\(other.columns); linked matrices have as many "
        + (side?.rawValue ?? "inputs or as many outputs"))
  }

  /// What the members' names have in common, and in braces what they differ in.
  static func commonName(of members: [[LinkGlob.Segment]]) -> String {
    // Alternatives that are parts of one glob have the same number of segments but for empty text between them.
    guard let first = members.first, members.allSatisfy({ $0.count == first.count }) else {
      return "{" + members.map { $0.map(\.text).joined() }.joined(separator: ",") + "}"
    }
    return first.indices.map { place in
      var seen: Set<String> = []
      let texts = members.map { $0[place].text }.filter { seen.insert($0).inserted }
      switch texts.count {
      case 1: return texts[0]
      case 2...4: return "{\(texts.joined(separator: ","))}"
      default: return "{\(texts[0])..\(texts[texts.count - 1])}"
      }
    }.joined()
  }
}
