import Checkpoints
import Squeezing
import TensorNetworks

/// Everything that decides the result of a conversion, beside the checkpoint and the statistics themselves.
///
/// The command line is one way to write a recipe, a YAML file another, and the manifest of an MPO checkpoint has the one
/// that made it. Two conversions of the same checkpoint by the same recipe write the same bytes.
///
/// ```swift
/// var recipe = ConversionRecipe()
/// recipe.budget = .ratio(0.5)
/// recipe.structure = .svd
/// ```
///
/// A new member is a property with its default, a case of `CodingKeys` with what it may be, and a line in `init(from:)`
/// and `encode(to:)` each.
public struct ConversionRecipe: Sendable, Hashable {
  /// Which tensors are decomposed, and over which sites.
  public var selection = TensorSelection()
  /// Which matrices may share a core.
  public var links: [LinkRule] = []
  /// Which matrices have a central core in common.
  public var sharedCentres: [SharedCentreRule] = []
  /// Globs: the matrices that one of them matches get the same bonds.
  public var ties: [String] = []
  /// How far bonds are lowered; nil in a recipe whose budget is not chosen yet, as that of a profile.
  public var budget: Budget?
  /// What a matrix may become.
  public var structure = MatrixStructure.auto
  /// The sites of factorisations of low rank: those beyond two are square cores between two frames, which training can
  /// move alone.
  public var depth = 2
  /// Which bond is lowered next.
  public var criterion = SqueezeCriterion.errorPerParameter
  /// No bond is lowered below it.
  public var minimumBond = 1
  /// Which bonds are chosen from.
  public var alignment = BondAlignment.auto
  /// Which of the equal chains of cores is stored.
  public var gauge = Gauge.compact
  /// The statistics whose metric errors are measured in; nil for the Frobenius norm.
  public var metric: StatisticsIdentity?
  /// What of the matrices counts; nil for all of them.
  public var mask: MaskRule?
  /// Which bases the chains of matrices are computed in.
  public var basis = BasisChoice.auto
  /// Spaces that sides of matrices belong to, where the names of the matrices do not say it; the last rule for a side counts.
  public var spaces: [SpaceRule] = []
  /// The dtype of the cores; nil for that of the source (of a lossless conversion: at least F32).
  public var dtype: DType?
  /// How central cores are encoded; nil for plain values.
  public var central: CentralEncoding?
  /// What cores are stored in, where it is something else; the last rule for a core counts.
  public var encodings: [EncodingRule] = []
  /// Whether entries are packed.
  public var pack = false

  /// The recipe of `mpo convert` without an option; it has no budget yet.
  public init() {}
}

/// Which bases the chains of matrices are computed in.
public enum BasisChoice: String, Sendable, Hashable, Codable, CaseIterable {
  /// With a metric, those that its second moments give: one for all that reads the residual stream and one for all that is
  /// written to it, an order of the neurons elsewhere.
  case auto
  /// The order of rows and columns that the matrix has.
  case none
}

extension ConversionRecipe {
  /// Whether chains are computed in bases.
  public var usesBases: Bool { basis == .auto && structure == .chain && metric != nil && budget != .lossless }
}

/// How the elements of central cores are stored.
public enum CentralEncoding: String, Sendable, Hashable, Codable, CaseIterable {
  /// Bytes with scales.
  case int8

  /// The encoding in a few words, for people.
  public var summary: String {
    switch self {
    case .int8: "bytes with scales, a quarter of f32"
    }
  }
}
