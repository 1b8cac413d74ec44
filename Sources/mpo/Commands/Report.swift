import ArgumentParser
import Checkpoints
import Conversion
import Files
import MPOCheckpoints
import Reports

struct Report: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Make one HTML page of a model: what became of every matrix, and what it cost.",
    discussion: """
      Each PATH is an MPO checkpoint, a plan or a dense checkpoint, all of one model; the page shows several side by side. A \
      profile (all its parts) adds the singular spectra, the curves of error against numbers, and the error at other ratios. The page runs no script and loads nothing.
      """)

  @Argument(help: "MPO checkpoints, plans, profiles and dense checkpoints of one model.")
  var paths: [String]

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("The file to write; - for stdout.", valueName: "report.html"))
  var output = "report.html"

  @Option(
    help: ArgumentHelp(
      "In a model of more than \(Reports.Report.detailLimit) matrices: show in full those that this glob matches, instead of those that lose most; repeatable.",
      valueName: "glob"))
  var matrix: [String] = []

  @OptionGroup var sourceOptions: SourceOptions
  @OptionGroup var outputOptions: OutputOptions

  func run() throws {
    var subjects: [ReportSubject] = []
    var profiles: [(path: String, profile: StageFile.Profile)] = []
    var loading: [LoadingStep] = []
    for path in paths {
      if MPOCheckpoint.isPresent(at: path) {
        let checkpoint = try MPOCheckpoint(path: path)
        if loading.isEmpty { loading = LoadingText.steps(of: checkpoint.manifest, at: path) }
        subjects.append(ReportSubject(checkpoint))
      } else if let bytes = try Self.stageFile(path) {
        if StageFile.formatName(of: bytes) == StageFile.Plan.formatName {
          subjects.append(
            try ReportSubject(
              StageFile.decode(
                bytes, as: StageFile.Plan.self, format: StageFile.Plan.formatName, path: path),
              path: path))
        } else {
          profiles.append(
            (
              path,
              try StageFile.decode(
                bytes, as: StageFile.Profile.self, format: StageFile.Profile.formatName, path: path)
            ))
        }
      } else {
        let checkpoint = try sourceOptions.open(path)
        for notice in checkpoint.notices { warn(notice) }
        subjects.append(ReportSubject(checkpoint))
      }
    }
    let profile =
      profiles.isEmpty ? nil : (path: profiles[0].path, profile: try Plan.merged(profiles))
    if subjects.isEmpty, let profile {
      subjects.append(try ReportSubject(profile.profile, path: profile.path))
    }
    // Names that differ in their folders only say nothing.
    for index in subjects.indices
    where subjects.count(where: { $0.label == subjects[index].label }) > 1 {
      subjects[index].label = subjects[index].path
    }
    let report = try Reports.Report(
      subjects: subjects, profile: profile, chosen: matrix,
      texts: Reports.Report.Texts(
        generator: MPOTool.generator, command: RecipeCommand.text,
        loading: loading,
        withoutProfile:
          "For spectra and curves of the error give 'mpo report' the profile of the model too."
      ))
    let page = Array(try report.html().utf8)
    try StageOutput(output, outputOptions, inputs: paths.filter { $0 != "-" }).write(page)
    if output != "-" {
      StandardError.write(
        "\(escaped(output, limit: 4096)): \(report.matrixCount) matrices, \(bytes(page.count))\n")
    }
  }

  /// The content of a file that a stage wrote, or of standard input; nil for anything else.
  private static func stageFile(_ path: String) throws -> [UInt8]? {
    if path == "-" { return try readFile(path) }
    guard try FileStatus(at: path)?.kind == .file,
      path.hasSuffix(".json") || !path.contains(".safetensors")
    else {
      return nil
    }
    let file = try MappedFile(path: path)
    guard file.byteCount > 0, try file.withBytes(in: 0..<1, { $0[0] }) == UInt8(ascii: "{") else {
      return nil
    }
    let bytes = try readFile(path)
    return StageFile.formatName(of: bytes) == nil ? nil : bytes
  }
}
