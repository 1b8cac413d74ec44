import Checkpoints
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks

extension Converter {
  /// What will be stored: for every tensor of the source its record, with the operators and cores that the plan gives it.
  func contents(
    of checkpoint: any DenseCheckpoint, plan: SqueezePlan, ties: [TensorName: TensorInfo]
  ) throws -> CheckpointContents {
    var layers = Dictionary(plan.layers.map { (TensorName($0.name), $0) }, uniquingKeysWith: { first, _ in first })
    let kept =
      self.kept
      ?? KeptTensors(checkpoint.tensors, ModelConfiguration(of: checkpoint), include: recipe.selection.include)
    for rule in recipe.encodings where !plan.layers.contains(where: { matches(rule.glob, $0.name) }) {
      throw ConversionError.globMatchesNothing(member: "encodings", glob: rule.glob, path: checkpoint.path)
    }
    var contents = CheckpointContents()
    let links = try LinkedRanges(of: plan, in: checkpoint)
    for tensor in checkpoint.tensors {
      let layer = layers.removeValue(forKey: tensor.key)
      let experts = layer == nil ? takeExperts(of: tensor, from: &layers, in: checkpoint) : []
      var record = TensorRecord(dense: tensor)
      record.isTrainingState = kept.reason(for: tensor) == .trainingState
      if let target = ties[tensor.key] {
        record.storage = .tied(to: target.name)
      } else if let layer, layer.bonds != nil || CoreEncodings(of: layer, recipe).central != nil {
        let own = try planned(
          layer, in: tensor, WeightMatrix.sides(of: tensor, convolutions: true), links, checkpoint)
        var blocks = BlockMatrix(rows: layer.rows, columns: layer.columns, blocks: [own.terms])
        (blocks.svdRelativeError, blocks.norm) = (layer.svdRelativeError, layer.norm)
        record.storage = .blocks(blocks)
        contents.append(record, operators: own.operators, cores: own.cores)
        continue
      } else if experts.contains(where: { $0.bonds != nil || CoreEncodings(of: $0, recipe).central != nil }) {
        guard experts.count == tensor.shape[0] else {
          throw ConversionError.mismatch(
            path: checkpoint.path, tensor: tensor.name,
            reason:
              "is a stack of \(tensor.shape[0]) matrices, the plan has \(experts.count) of them; make a plan of this model"
          )
        }
        let sides = WeightMatrix.stackedSides(of: tensor)
        let chains = try experts.map { try planned($0, in: tensor, sides, links, checkpoint) }
        var blocks = BlockMatrix(
          rows: tensor.shape[0] * tensor.shape[1], columns: tensor.shape[2],
          blocks: chains.map(\.terms))
        (blocks.svdRelativeError, blocks.norm) = OperatorErrors.joined(
          experts.map { ($0.bonds == nil ? 0 : $0.svdRelativeError, $0.norm * $0.norm) })
        record.storage = .blocks(blocks)
        contents.append(record, operators: chains.flatMap(\.operators), cores: chains.flatMap(\.cores))
        continue
      }
      contents.append(record)
    }
    if let missing = layers.keys.min() {
      throw ConversionError.mismatch(
        path: checkpoint.path, tensor: missing.text,
        reason: "is in the plan but not in the model; make a plan of this model")
    }
    return contents
  }

  /// The layers that the plan has for the matrices that are stacked in a tensor.
  private func takeExperts(
    of tensor: TensorInfo, from layers: inout [TensorName: SqueezePlan.Layer], in checkpoint: any DenseCheckpoint
  ) -> [SqueezePlan.Layer] {
    guard tensor.shape.count == 3, layers[TensorName(WeightMatrix.name(ofExpert: 0, in: tensor))] != nil,
      !WeightMatrix.isAmbiguous(tensor, in: checkpoint)
    else { return [] }
    return (0..<tensor.shape[0]).compactMap {
      layers.removeValue(forKey: TensorName(WeightMatrix.name(ofExpert: $0, in: tensor)))
    }
  }

  private typealias PlannedOperators = (terms: [BlockMatrix.Term], operators: [OperatorRecord], cores: [CoreRecord])

  /// The operators that a layer becomes: one, or one and what is added to it. An expert that stays dense in a tensor whose others do not becomes the operator
  /// that has its very elements: a factorisation at full rank, one factor of which is the identity and not stored.
  /// - Parameter sides: of the matrix, as the tensor has them.
  private func planned(
    _ layer: SqueezePlan.Layer, in tensor: TensorInfo, _ sides: (rows: Int, columns: Int)?, _ links: LinkedRanges,
    _ checkpoint: any DenseCheckpoint
  ) throws -> PlannedOperators {
    func mismatch(_ reason: String) -> ConversionError {
      .mismatch(path: checkpoint.path, tensor: layer.name, reason: reason)
    }
    guard let sides, sides == (layer.rows, layer.columns) else {
      throw mismatch(
        "is \(tensor.dtype.rawValue) \(tensor.shape), the plan is for \(layer.rows) × \(layer.columns); "
          + "make a profile and a plan of this model")
    }
    let encodings = CoreEncodings(of: layer, recipe)
    guard let bonds = layer.bonds else {
      let split = MatrixSplit.lowRank(rows: layer.rows, columns: layer.columns)
      let (chain, cores) = OperatorRecord.ordinary(
        name: layer.name, split, bonds: split.shape.fullBonds, gauge: .compact, dtype: tensor.dtype)
      return ([BlockMatrix.Term(chain.name)], [chain], encodings.applied(to: cores))
    }
    let dtype = coreDType ?? defaultCoreDType(for: tensor.dtype)
    if layer.link != nil {
      guard let (term, link) = links[layer] else {
        throw mismatch("its plan lacks the operator in which it is linked; make the plan again")
      }
      let (chain, cores) = OperatorRecord.ordinary(
        name: link.name, link.split, bonds: link.bonds, gauge: link.gauge, dtype: dtype, central: recipe.central)
      return ([term], [chain], encodings.applied(to: cores))
    }
    guard TensorSelection.fits(layer.shape, rows: layer.rows, columns: layer.columns),
      bonds.count == layer.shape.siteCount - 1
    else {
      throw mismatch(
        "its plan, bonds \(bonds) of the factors \(layer.shape), contradicts itself; make the plan again")
    }
    let bases = layer.shape.siteCount > 2 ? bases?[layer.name] : nil
    if let centre = layer.centre {
      guard bonds == layer.shape.fullBonds, layer.gauge == .canonical, layer.shape.siteCount > 2 else {
        throw mismatch("its plan contradicts itself; make the plan again")
      }
      let (chain, cores) = OperatorRecord.sharing(
        centre, name: layer.name, layer.split, bonds: bonds, dtype: dtype, central: recipe.central)
      guard let rank = links.residualRank(ofCentre: centre) else {
        return ([BlockMatrix.Term(chain.name)], [chain], encodings.applied(to: cores))
      }
      let split = MatrixSplit.lowRank(rows: layer.rows, columns: layer.columns)
      guard split.shape.limitedBonds([rank]) == [rank] else {
        throw mismatch("its plan contradicts itself; make the plan again")
      }
      let residual = OperatorRecord.ordinary(
        name: layer.name + ".residual", split, bonds: [rank], gauge: recipe.gauge, dtype: dtype, central: recipe.central
      )
      return (
        [chain.name, residual.operator.name].map { BlockMatrix.Term($0) }, [chain, residual.operator],
        encodings.applied(to: cores + residual.cores)
      )
    }
    let (chain, cores) = OperatorRecord.ordinary(
      name: layer.name, layer.split, bonds: layer.shape.limitedBonds(bonds), gauge: layer.gauge, dtype: dtype,
      central: recipe.central, rowBasis: bases?.rowRecord.orNil, columnBasis: bases?.columnRecord.orNil,
      entropies: layer.entropies)
    return ([BlockMatrix.Term(chain.name)], [chain], encodings.applied(to: cores))
  }

  private func defaultCoreDType(for source: DType) -> DType {
    isLossless && source.bitWidth < 32 ? .f32 : source
  }
}

extension OperatorRecord.BasisRecord {
  /// nil for the identity.
  fileprivate var orNil: OperatorRecord.BasisRecord? { cores.isEmpty ? nil : self }
}
