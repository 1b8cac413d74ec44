import Checkpoints
import Conversion
import MPOCheckpoints
import Recipes
import Squeezing
import TensorNetworks

/// A report that people open: one HTML page about one model, with no request, no script and no file beside it.
///
/// ```swift
/// let report = try Report(subjects: [ReportSubject(checkpoint)], profile: nil, texts: texts)
/// let page = try report.html()
/// ```
public struct Report: Sendable {
  /// What only a program knows: how its commands are called.
  public struct Texts: Sendable {
    /// What has made the report.
    public var generator: String
    /// The command that follows a recipe; nil where none can be given.
    public var command: @Sendable (_ recipe: ConversionRecipe) -> String?
    /// How to load an MPO checkpoint.
    public var loading: [LoadingStep]
    /// What to say where there are no spectra.
    public var withoutProfile: String

    /// The texts of the program that makes the report.
    public init(
      generator: String, command: @escaping @Sendable (ConversionRecipe) -> String?,
      loading: [LoadingStep], withoutProfile: String
    ) {
      self.generator = generator
      self.command = command
      self.loading = loading
      self.withoutProfile = withoutProfile
    }
  }

  let subjects: [ReportSubject]
  let profile: StageFile.Profile?
  let texts: Texts
  /// Globs of the matrices to show in full, where there are too many for all of them.
  let chosen: [String]

  /// - Parameters:
  ///   - subjects: side by side, at least one.
  ///   - profile: the spectra of the matrices, with where it is from.
  ///   - chosen: globs of matrices to show in full where the page has no room for all.
  ///   - texts: what only the program knows.
  /// - Throws: `ReportError` for things of different models, and for a glob that matches nothing.
  public init(
    subjects: [ReportSubject], profile: (path: String, profile: StageFile.Profile)?,
    chosen: [String] = [], texts: Texts
  ) throws {
    // The one that knows most of the model comes first in comparisons.
    let reference = subjects.first { !$0.tensors.isEmpty } ?? subjects[0]
    for subject in subjects where subject.path != reference.path {
      try subject.requireSameModel(as: reference)
    }
    if let profile {
      try ReportSubject(profile.profile, path: profile.path).requireSameModel(as: reference)
    }
    self.subjects = subjects.map { $0.path == reference.path ? $0 : $0.stacked(like: reference) }
    self.profile = profile?.profile
    self.chosen = chosen
    self.texts = texts
    for glob in chosen where !names.contains(where: { matches(glob, $0) }) {
      throw ReportError.globMatchesNothing(glob: glob, path: reference.path)
    }
  }

  /// So many matrices are shown in full where nothing else is asked for.
  public static let detailLimit = 300

  /// How many matrices the page has.
  public var matrixCount: Int { names.count }

  /// Every matrix of the model, in the order of the one that knows most of it.
  var names: [String] {
    var seen: Set<TensorName> = []
    let first = subjects.first { !$0.tensors.isEmpty } ?? subjects[0]
    return ([first] + subjects).flatMap { $0.matrices.map(\.name) }.filter {
      seen.insert(TensorName($0)).inserted
    }
  }

  /// How the columns are told apart in pictures: nothing for one, letters for several.
  var signs: [String] {
    subjects.count == 1 ? [""] : subjects.indices.map { String(UnicodeScalar(UInt8(65 + $0 % 26))) }
  }

  /// The page.
  /// - Throws: What the template library throws.
  public func html() throws -> String { try ReportPage(self).html() }
}
