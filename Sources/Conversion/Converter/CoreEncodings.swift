import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks

/// What the cores of one operator are stored in, beside the dtype.
struct CoreEncodings {
  /// nil for what the record has.
  var central: CoreEncoding?
  var auxiliary: CoreEncoding?

  init(central: CoreEncoding?, auxiliary: CoreEncoding?) { (self.central, self.auxiliary) = (central, auxiliary) }

  /// As a plan says, or a recipe's rules.
  init(of layer: SqueezePlan.Layer, _ recipe: ConversionRecipe) {
    if let integers = layer.integers {
      (central, auxiliary) = (.integers(integers), .integers(integers))
      return
    }
    for rule in recipe.encodings where matches(rule.glob, layer.name) {
      if rule.cores != .auxiliary { central = rule.encoding }
      if rule.cores != .central { auxiliary = rule.encoding }
    }
  }

  /// The encodings in the records of cores.
  func applied(to cores: [CoreRecord]) -> [CoreRecord] {
    cores.map { core in
      let choice = core.role == .central ? central : core.role == .auxiliary ? auxiliary : nil
      guard let choice else { return core }
      let pivots = core.encoding.pivots
      let encoding: ArrayEncoding
      switch choice {
      case .plain(let dtype): encoding = ArrayEncoding(.plain(dtype), pivots: pivots)
      case .integers(let integers):
        // An identity has no values.
        guard core.encoding.valueCount(of: core.shape) > 0 else { return core }
        encoding = .grouped(integers, shape: core.shape, pivots: pivots)
      }
      return CoreRecord(name: core.name, role: core.role, shape: core.shape, encoding: encoding)
    }
  }
}
