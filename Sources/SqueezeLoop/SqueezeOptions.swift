import Checkpoints
import Conversion
import Squeezing
import TensorNetworks

/// How far and how a network is squeezed with the user's own evaluation: everything that the result depends on, beside
/// the network.
public struct SqueezeOptions: Sendable, Equatable, Codable {
  /// When a round is accepted.
  public enum Limit: Sendable, Equatable, Codable {
    /// The score is no worse than that of the model to begin with by more than this (Δ of arXiv 2106.02205, algorithm 2).
    case maximumDrop(Double)
    /// The score is no worse than this.
    case worstScore(Double)
  }

  /// How many parameters a round saves.
  public enum Step: Sendable, Equatable, Codable {
    /// So many numbers.
    case parameters(Int)
    /// Of what the model to begin with is stored with; from 0 to 1.
    case fraction(Double)
  }

  /// A floor for the bonds of the matrices that a glob matches; the last that matches wins.
  public struct MinimumBond: Sendable, Equatable, Codable {
    /// Names of matrices.
    public var glob: String
    /// The floor of each of their bonds.
    public var bond: Int

    /// A floor for the matrices that a glob matches.
    public init(glob: String, bond: Int) {
      self.glob = glob
      self.bond = bond
    }
  }

  /// Prints the score of a checkpoint as its last line.
  public var evaluate: String
  /// Trains a checkpoint.
  public var finetune: String?
  /// When a round is accepted.
  public var limit: Limit
  /// Whether a lower score is the better one, as of a perplexity.
  public var lowerIsBetter = false
  /// Rounds at most, accepted or not; nil for no limit.
  public var maximumRounds: Int?
  /// How many parameters the first round saves.
  public var step = Step.fraction(0.02)
  /// A rejected round halves the step; below this the squeeze ends. nil for a sixteenth of `step`.
  public var minimumStep: Step?
  /// What decides which bond falls next.
  public var criterion = SqueezeCriterion.errorPerParameter
  /// Each ties the matrices that it matches.
  public var ties: [String] = []
  /// Floors for bonds; the last that matches a matrix wins.
  public var minimumBonds: [MinimumBond] = []
  /// Of cores that a dense matrix becomes; nil for that of the matrix.
  public var coreDType: DType?
  /// Of the operators of the output; nil for those they have, and compact for new ones.
  public var gauge: Gauge?
  /// Whether the output is packed; it is too when the model to begin with is.
  public var packs = false

  /// Options with a command that measures and a limit; the rest is as by default.
  public init(evaluate: String, limit: Limit) {
    self.evaluate = evaluate
    self.limit = limit
  }

  /// The worst score that is accepted, when the model to begin with has `baseline`.
  func worstScore(baseline: Double) -> Double {
    switch limit {
    case .worstScore(let score): score
    case .maximumDrop(let drop): lowerIsBetter ? baseline + drop : baseline - drop
    }
  }

  /// Whether `score` is not worse than `worst`.
  func accepts(_ score: Double, worst: Double) -> Bool { lowerIsBetter ? score <= worst : score >= worst }

  /// Parameters of the first step and of the smallest, when the model to begin with has `parameters`.
  func steps(parameters: Int) -> (first: Int, smallest: Int) {
    func count(_ step: Step) -> Int {
      switch step {
      case .parameters(let count): max(1, count)
      case .fraction(let fraction): max(1, Int((fraction * Double(parameters)).rounded()))
      }
    }
    let first = count(step)
    return (first, min(first, minimumStep.map(count) ?? max(1, first / 16)))
  }

  func minimumBond(for name: String) -> Int {
    minimumBonds.last { matches($0.glob, name) }?.bond ?? 1
  }
}

extension SqueezeOptions.Limit: CustomStringConvertible {
  /// As the command line takes it.
  public var description: String {
    switch self {
    case .maximumDrop(let drop): "--max-drop \(drop)"
    case .worstScore(let score): "--min-score \(score)"
    }
  }
}
