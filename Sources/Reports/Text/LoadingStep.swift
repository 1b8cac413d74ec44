/// A way to go on with an MPO checkpoint.
public struct LoadingStep: Sendable {
  /// What it gives.
  public let title: String
  /// Of the code, as a fence of Markdown names it: `sh`, `python`.
  public let language: String
  /// The lines to run.
  public let code: String

  /// A step with a title, and code in the named language.
  public init(_ title: String, language: String, code: String) {
    (self.title, self.language, self.code) = (title, language, code)
  }
}
