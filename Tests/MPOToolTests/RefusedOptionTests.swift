import Foundation
import TestSupport
import Testing

/// An option that would have no effect is refused by its name.
@Suite struct RefusedOptionTests {
  private static func convert(_ words: String) -> [String] {
    ["convert", "m", "-o", "o"] + words.split(separator: " ").map(String.init)
  }

  /// Words for every option that writes a member of the recipe.
  private static let recipeOptions = [
    "--structure svd", "--criterion error", "--tie x", "--min-bond 2", "--sites 3", "--shape x=8,8x8,8", "--include x",
    "--exclude x", "--convolutions", "--experts", "--gauge canonical", "--ratio 0.5", "--matrix-ratio 0.5",
    "--max-error 0.1", "--bond 3", "--lossless", "--link a{b,c}", "--share-central a*",
    "--mask zeros", "--mask m --mask-weights elements",
    "--dtype bf16", "--central int8", "--pack", "--calibration s --input-ridge 1", "--calibration s --output-ridge 1",
  ]

  private func expectRefused(
    _ arguments: [String], _ parts: String..., at location: SourceLocation = #_sourceLocation
  ) throws {
    let result = try Tool.Run(arguments).finish()
    #expect(result.status == 64 && result.output.isEmpty, "\(result.messages)", sourceLocation: location)
    for part in parts {
      #expect(result.messages.contains(part), "'\(part)' is not in: \(result.messages)", sourceLocation: location)
    }
  }

  /// The option that is to be named: the last in `words`.
  private func option(_ words: String) -> String {
    words.split(separator: " ").last { $0.hasPrefix("--") }.map(String.init) ?? ""
  }

  @Test(arguments: recipeOptions, ["--plan p", "--recipe r", "--like l"])
  func `what the recipe decides can't be an option beside it`(option words: String, source: String) throws {
    let name = source.split(separator: " ")[0]
    try expectRefused(Self.convert("\(source) \(words)"), "Error: \(option(words)) has no effect with \(name)")
  }

  @Test(arguments: recipeOptions.filter { !$0.hasPrefix("--ratio") })
  func `every option is accepted where it has an effect`(words: String) throws {
    // The model is not there: whatever is refused is refused before that is seen.
    let rest =
      switch option(words) {
      case "--matrix-ratio", "--max-error", "--bond", "--lossless": ""
      default: " --ratio 0.5"
      }
    let result = try Tool.Run(Self.convert(words + rest)).finish()
    #expect(result.status == 1 && result.messages.contains("no such"), "\(result.messages)")
  }

  @Test(arguments: [
    ("--plan p --recipe r", "--plan, --recipe"), ("--recipe r --like l", "--recipe, --like"),
    ("--plan p --like l", "--plan, --like"),
  ])
  func `only one recipe is followed`(words: String, names: String) throws {
    try expectRefused(Self.convert(words), "Give only one of \(names)")
  }

  @Test(arguments: [
    ("--bond 6 --min-bond 8", "--bond 6 is below --min-bond 8"),
    ("--bond 6 --criterion error", "--criterion has no effect with --bond"),
    ("--bond 6 --criterion error-per-parameter", "--criterion has no effect with --bond"),
    ("--lossless --criterion error-per-parameter", "--criterion has no effect with --lossless"),
    ("--bond 6 --structure auto", "--structure auto has no effect with --bond"),
    ("--ratio 0.5 --structure svd --criterion error", "--criterion error has no effect with --structure svd"),
    ("--ratio 0.5 --structure auto --criterion error", "--criterion error has no effect with --structure auto"),
    ("--ratio 0.5 --calibration s --criterion error", "--criterion error has no effect with --calibration"),
    ("--ratio 0.5 --structure svd --sites 2", "--sites has no effect with --structure svd"),
    ("--ratio 0.5 --structure svd --sites 4 --gauge compact", "--gauge compact has no effect with --sites 4"),
    ("--ratio 0.5 --structure svd --sites 4 --link a{b,c}", "--link has no effect with --sites 4"),
    ("--ratio 0.5 --structure svd --sites 4 --shape x=8,8x8,8", "--shape has no effect with --structure svd"),
    ("--lossless --structure svd --sites 4", "--sites has no effect with --lossless"),
    ("--lossless --share-central a*", "--share-central has no effect with --lossless"),
    ("--max-error 0.1 --share-central a*", "--share-central has no effect with --max-error"),
    ("--ratio 0.5 --residual-rank 4", "--residual-rank goes with --share-central"),
    ("--ratio 0.5 --share-central a* --residual-rank 0", "--residual-rank must be at least 1, not 0"),
    ("--ratio 0.5 --mask-weights elements", "--mask-weights goes with --mask"),
    ("--lossless --mask zeros", "--mask has no effect with --lossless"),
    ("--ratio 0.5 --calibration s --mask zeros", "--mask zeros has no effect with --calibration"),
    ("--ratio 0.5 --calibration s --mask m --mask-weights sides", "--mask-weights has no effect with --calibration"),
    ("--ratio 0.5 --mask zeros --criterion error", "--criterion error has no effect with --mask"),
    (
      "--ratio 0.5 --mask zeros --mask-weights elements --link a{b,c}",
      "--mask-weights elements has no effect with --link"
    ),
    (
      "--ratio 0.5 --sites 5 --calibration s --basis none --basis a*=inputs:stream",
      "--basis has no effect with --basis none"
    ),
    ("--ratio 0.5 --sites 5 --basis auto --basis none", "give one of them, once"),
    ("--ratio 0.5 --calibration s --basis a*=inputs:stream", "--basis has no effect with --structure auto"),
    ("--ratio 0.5 --sites 5 --basis a*=columns:stream", "'a*=columns:stream' is invalid for '--basis"),
    ("--ratio 0.5 --share-central a*=0", "'0' is not a number of central cores"),
    ("--lossless --link a{b,c}", "--link has no effect with --lossless"),
    ("--bond 4 --link a{b,c}", "--link has no effect with --bond"),
    ("--ratio 0.5 --structure chain --link a{b,c}", "--link has no effect with --structure chain"),
    ("--ratio 0.5 --sites 4 --link a{b,c}", "--link has no effect with --structure chain"),
    ("--ratio 0.5 --link a{b,c}=x", "'x' is neither inputs nor outputs"),
    ("--ratio 0.5 --link-layers a*=1", "give it as GLOB=N"), ("--ratio 0.5 --link-layers a*", "give it as GLOB=N"),
    ("--ratio 0.5 --structure svd --shape x=8,8x8,8", "--shape has no effect with --structure svd"),
    ("--ratio 0.5 --input-ridge 1", "--input-ridge goes with --calibration"),
    ("--ratio 0.5 --output-ridge 1", "--output-ridge goes with --calibration"),
    ("--ratio 0.5 --matrix-ratio 0.5", "Give only one of --ratio, --matrix-ratio"),
    ("--ratio 0.5 --part 1/2", "--part goes with --plan"), ("--recipe r --part 1/2", "--part goes with --plan"),
    ("--like l --part 1/2", "--part goes with --plan"), ("", "Give a budget"),
  ])
  func `options without effect beside others are refused`(words: String, reason: String) throws {
    try expectRefused(Self.convert(words), reason)
  }

  @Test(arguments: [
    ("--structure svd --sites 2", "--sites has no effect with --structure svd"),
    ("--recipe r --sites 3", "--sites has no effect with --recipe"),
    ("--recipe r --structure svd", "--structure has no effect with --recipe"),
    ("--recipe r --calibration s --input-ridge 1", "--input-ridge has no effect with --recipe"),
    ("--input-ridge 1", "--input-ridge goes with --calibration"),
  ])
  func `options of profile without effect are refused`(words: String, reason: String) throws {
    try expectRefused(["profile", "m", "-o", "o"] + words.split(separator: " ").map(String.init), reason)
  }

  @Test(arguments: [
    ("--bond 6 --min-bond 8", "--bond 6 is below --min-bond 8"),
    ("--bond 6 --criterion error", "--criterion has no effect with --bond"),
    ("--ratio 0.5 --structure svd --criterion error", "--criterion error has no effect with --structure svd"),
  ])
  func `options of plan without effect are refused`(words: String, reason: String) throws {
    try expectRefused(["plan", "p", "-o", "o"] + words.split(separator: " ").map(String.init), reason)
  }

  @Test func `inspect prints a recipe or something else, not both`() throws {
    for option in [["--json"], ["--tensor", "x"], ["--tensor", "x", "--spectrum"]] {
      try expectRefused(["inspect", "m", "--recipe"] + option, "--recipe prints the whole recipe")
    }
  }

  @Test func `help lists the types that cores may have, and no others`() throws {
    let help = try Tool.run("convert", "--help").output
    #expect(help.contains("(values: f64, f32, f16, bf16)"), "\(help)")
    let result = try Tool.run("convert", "m", "-o", "o", "--ratio", "0.5", "--dtype", "u8")
    #expect(result.status == 64 && result.messages.contains("bf16") && !result.messages.contains("f8_e4m3"))
  }

  @Test func `stdout is refused where it can't be written to`() throws {
    let temporary = try TemporaryFolder()
    let bert = fixtures + "/tiny-bert"
    let output = temporary.path + "/out.mpo"
    #expect(try Tool.run("convert", bert, "-o", output, "--ratio", "0.6").status == 0)
    for command in [["restore", output], ["convert", bert, "--ratio", "0.6"], ["merge", output]] {
      expectFailure(try Tool.Run(command + ["-o", "-"]).finish(), "-o '-'", "stdout", "name a file or a folder")
    }
  }
}
