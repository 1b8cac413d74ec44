import ArgumentParser
import Checkpoints
import Recipes
import TensorNetworks

/// How the cores are stored.
struct StorageOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "Which of the chains that represent the same matrix is stored: compact (no redundant number), canonical (isometries around the "
        + "central core, for fine-tuning) or spectral (canonical with the singular values at the centre stored apart). "
        + "Default: compact.", valueName: "g"))
  var gauge: Gauge?

  @Option(
    help: ArgumentHelp(
      "The type of the cores. Default: the source's; with --lossless at least f32.", valueName: "type"))
  var dtype: CoreDType?

  @Option(
    help: ArgumentHelp(
      "Store the central cores as \(CentralEncoding.summaries); the other cores keep their type.",
      valueName: "encoding"))
  var central: CentralEncoding?

  @Option(
    help: ArgumentHelp(
      "Store the cores of the matrices that a glob matches as \(CoreEncoding.choices): 'GLOB=int4'. 'central:GLOB=int8' is for "
        + "central (or auxiliary) cores alone. Repeatable; the last match wins.",
      valueName: "rule"))
  var encode: [EncodingRule] = []

  @Flag(
    help:
      "Pack everything that is stored, losslessly: smaller and faster than gzip. Entries that packing does not shrink are stored unpacked."
  )
  var pack = false

  var given: [String] {
    [
      gauge.map { _ in "gauge" }, dtype.map { _ in "dtype" }, central.map { _ in "central" },
      encode.isEmpty ? nil : "encodings", pack ? "pack" : nil,
    ].compactMap(\.self)
  }

  func write(to recipe: inout ConversionRecipe) {
    if let gauge { recipe.gauge = gauge }
    if let dtype { recipe.dtype = dtype.dtype }
    if let central { recipe.central = central }
    if !encode.isEmpty { recipe.encodings = encode }
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
extension EncodingRule: ExpressibleByArgument {
  /// `GLOB=int4`, or `central:GLOB=int4`; `central=int4` for all.
  public init?(argument: String) {
    guard let place = argument.lastIndex(of: "="),
      let encoding = CoreEncoding(argument[argument.index(after: place)...])
    else { return nil }
    let target = argument[..<place]
    let words = target.split(separator: ":", maxSplits: 1).map(String.init)
    if let cores = words.first.flatMap(Cores.init(rawValue:)) {
      self.init(glob: words.count > 1 ? words[1] : "*", cores: cores, encoding: encoding)
    } else if !target.isEmpty {
      self.init(glob: String(target), encoding: encoding)
    } else {
      return nil
    }
  }
}
extension CentralEncoding: ExpressibleByArgument {
  /// All of them in a few words: `int8 (bytes with …)`.
  fileprivate static var summaries: String {
    allCases.map { "\($0.rawValue) (\($0.summary))" }.joined(separator: " or ")
  }
}
