import ArgumentParser
import Checkpoints
import Recipes
import TensorNetworks

/// How the cores are stored.
struct StorageOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "Which of the chains that stand for the same matrix is stored: compact (no redundant number), canonical (isometries around the "
        + "central core, for fine-tuning) or spectral (the same, with the singular values at the centre apart). "
        + "Default: compact.", valueName: "g"))
  var gauge: Gauge?

  @Option(
    help: ArgumentHelp(
      "Type of the cores. Default: that of the source; with --lossless at least f32.", valueName: "type"))
  var dtype: CoreDType?

  @Option(
    help: ArgumentHelp(
      "Store the central cores as \(CentralEncoding.summaries); the other cores keep their type.",
      valueName: "encoding"))
  var central: CentralEncoding?

  @Flag(
    help:
      "Pack what is stored, losslessly: smaller than gzip, and faster. Entries that packing does not shrink are stored unpacked."
  )
  var pack = false

  var given: [String] {
    [
      gauge.map { _ in "gauge" }, dtype.map { _ in "dtype" }, central.map { _ in "central" }, pack ? "pack" : nil,
    ].compactMap(\.self)
  }

  func write(to recipe: inout ConversionRecipe) {
    if let gauge { recipe.gauge = gauge }
    if let dtype { recipe.dtype = dtype.dtype }
    if let central { recipe.central = central }
    if pack { recipe.pack = true }
  }
}

/// The types that cores may have.
enum CoreDType: String, ExpressibleByArgument, CaseIterable {
  case f64, f32, f16, bf16

  var dtype: DType {
    switch self {
    case .f64: .f64
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    }
  }
}

extension Gauge: ExpressibleByArgument {}
extension CentralEncoding: ExpressibleByArgument {
  /// All of them in a few words: `int8 (bytes with …)`.
  fileprivate static var summaries: String {
    allCases.map { "\($0.rawValue) (\($0.summary))" }.joined(separator: " or ")
  }
}
