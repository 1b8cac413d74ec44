import Checkpoints
import MPOCheckpoints
import Squeezing

/// Where the linked matrices of a plan are in their operators.
struct LinkedRanges {
  private var places: [TensorName: (link: SqueezePlan.Link, range: Range<Int>)] = [:]
  /// By the name of the central core.
  private var residualRanks: [TensorName: Int] = [:]

  /// - Throws: `ConversionError.mismatch` for a plan that contradicts itself.
  init(of plan: SqueezePlan, in checkpoint: any DenseCheckpoint) throws {
    let layers = Dictionary(plan.layers.map { (TensorName($0.name), $0) }, uniquingKeysWith: { first, _ in first })
    for link in plan.links ?? [] {
      var end = 0
      for name in link.members {
        guard let layer = layers[TensorName(name)], layer.link == link.name,
          link.stacking == .rows ? layer.columns == link.split.columns : layer.rows == link.split.rows
        else { throw Self.contradiction(name, checkpoint) }
        let start = end
        end += link.stacking == .rows ? layer.rows : layer.columns
        guard places.updateValue((link, start..<end), forKey: TensorName(name)) == nil else {
          throw Self.contradiction(name, checkpoint)
        }
      }
      guard end == (link.stacking == .rows ? link.split.rows : link.split.columns),
        link.split == .lowRank(rows: link.split.rows, columns: link.split.columns),
        link.split.shape.limitedBonds(link.bonds) == link.bonds
      else { throw Self.contradiction(link.name, checkpoint) }
    }
    for centre in plan.centres ?? [] { residualRanks[TensorName(centre.name)] = centre.residualRank }
  }

  private static func contradiction(_ name: String, _ checkpoint: any DenseCheckpoint) -> ConversionError {
    .mismatch(path: checkpoint.path, tensor: name, reason: "its plan contradicts itself; make the plan again")
  }

  /// The rank of what is added to a matrix whose central core has this name; nil for nothing.
  func residualRank(ofCentre name: String) -> Int? { residualRanks[TensorName(name)] }

  /// The range that a layer's matrix is; nil for one that is not linked.
  subscript(layer: SqueezePlan.Layer) -> (term: BlockMatrix.Term, link: SqueezePlan.Link)? {
    guard let (link, range) = places[TensorName(layer.name)] else { return nil }
    return link.stacking == .rows
      ? (BlockMatrix.Term(link.name, rows: range), link) : (BlockMatrix.Term(link.name, columns: range), link)
  }
}

/// The blocks of tensors that are factored together: ranges of one operator, or operators with one central core.
struct LinkedBlocks: Sendable {
  struct Place: Sendable, Hashable {
    let tensor: Int
    let block: Int
  }

  enum Kind {
    case link(SqueezePlan.Link)
    case centre(SharedCentre)

    /// The matrices, in the order of the blocks.
    var members: [String] {
      switch self {
      case .link(let link): link.members
      case .centre(let centre): centre.members
      }
    }
  }

  let kind: Kind
  let blocks: [Place]
}

extension SqueezePlan {
  /// The linked operators that contents have.
  func linkedBlocks(in contents: CheckpointContents) -> [LinkedBlocks] {
    if links == nil, centres == nil { return [] }
    var places: [TensorName: [(start: Int, place: LinkedBlocks.Place)]] = [:]
    for (tensor, record) in contents.tensors.enumerated() {
      for (block, terms) in (record.blocks?.blocks ?? []).enumerated() {
        guard let term = terms.first else { continue }
        places[TensorName(term.operator), default: []].append(
          ((term.rows ?? term.columns)?.lowerBound ?? 0, LinkedBlocks.Place(tensor: tensor, block: block)))
      }
    }
    let linked = (links ?? []).compactMap { link in
      places[TensorName(link.name)].map { found in
        LinkedBlocks(kind: .link(link), blocks: found.sorted { $0.start < $1.start }.map(\.place))
      }
    }
    return linked
      + (centres ?? []).compactMap { centre in
        let found = centre.members.compactMap { places[TensorName($0)]?.first?.place }
        return found.count == centre.members.count ? LinkedBlocks(kind: .centre(centre), blocks: found) : nil
      }
  }
}

/// Which tensors must stay together because of what is linked: each set goes by the name of one of them.
struct LinkHolders {
  private var holders: [TensorName: TensorName] = [:]

  /// - Parameter links: for each the tensors whose matrices it links.
  init(_ links: [[TensorName]]) {
    for names in links {
      guard let first = names.first else { continue }
      let (joined, holder) = (Set(names.map { self[$0] }), self[first])
      for (name, other) in holders where joined.contains(other) { holders[name] = holder }
      for name in names { holders[name] = holder }
    }
  }

  init(of plan: SqueezePlan, in contents: CheckpointContents) {
    self.init(
      plan.linkedBlocks(in: contents).map { link in
        link.blocks.map { TensorName(contents.tensors[$0.tensor].name) }
      })
  }

  subscript(name: TensorName) -> TensorName { holders[name] ?? name }
}
