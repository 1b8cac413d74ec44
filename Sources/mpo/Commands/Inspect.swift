import ArgumentParser
import Checkpoints
import Conversion
import MPOCheckpoints

struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what is in a dense checkpoint, a model folder, an MPO checkpoint or a statistics file.",
    discussion: """
      'error' is the relative Frobenius error, measured at conversion; 'in metric' is the relative error in the metric of \
      --calibration, if there was one; 'SVD' is the Frobenius error of the truncated singular value decomposition with at \
      most as many numbers. 'entropies' are entanglement entropies in nats, one for each bond.
      """)

  @Argument(help: "A checkpoint, file or folder, or a statistics file.")
  var path: String

  @Option(
    help: ArgumentHelp(
      "Show what a mask keeps of each matrix of a dense checkpoint, and its rank: 'zeros' for the zeros of the matrix itself, or a "
        + "file as for 'mpo convert --mask'. With --tensor and --spectrum: the spectrum of that matrix, masked.",
      valueName: "zeros|m.safetensors"
    ))
  var mask: String?

  @Option(help: ArgumentHelp("Show only this tensor, in full.", valueName: "name"))
  var tensor: String?

  @Flag(help: "With --tensor: print the singular values at every bond.")
  var spectrum = false

  @Flag(help: "Print a JSON object instead of text, with the names of the format's specification.")
  var json = false

  @Flag(help: "Print the recipe that made an MPO checkpoint, as YAML that 'mpo convert --recipe' reads.")
  var recipe = false

  @OptionGroup(title: "Lines") var lines: LineOptions

  @Flag(inversion: .prefixedNo, help: "On a terminal: show output that does not fit it with $PAGER.")
  var pager = true

  @OptionGroup var sourceOptions: SourceOptions

  func validate() throws {
    if recipe, mask != nil { throw ValidationError("--recipe prints the whole recipe as YAML; leave out --mask.") }
    if mask != nil, tensor != nil, !spectrum { throw ValidationError("--mask with --tensor needs --spectrum.") }
    if recipe, tensor != nil || spectrum || json {
      throw ValidationError("--recipe prints the whole recipe as YAML; leave out --tensor, --spectrum and --json.")
    }
    if let option = lines.given.first, tensor != nil || json || recipe || mask != nil {
      let other = tensor != nil ? "--tensor" : json ? "--json" : recipe ? "--recipe" : "--mask"
      throw ValidationError(
        "\(option) has no effect with \(other), which prints no table; leave one of them out.")
    }
    if spectrum, tensor == nil { throw ValidationError("--spectrum needs --tensor NAME.") }
  }

  func run() throws {
    if recipe {
      try StandardOutput.write(Conversion.recipe(of: MPOCheckpoint(path: path)).yaml())
    } else if MPOCheckpoint.isPresent(at: path) {
      if mask != nil { throw ValidationError("--mask is for dense checkpoints; \(path) is an MPO checkpoint.") }
      try MPOInspection(MPOCheckpoint(path: path)).print(
        tensor: tensor, spectrum: spectrum, json: json, lines: lines, pages: pager)
    } else {
      let checkpoint = try sourceOptions.open(path)
      if tensor == nil, !json, CalibrationStatistics.isPresent(in: checkpoint) {
        if let option = lines.given.first {
          throw ValidationError("\(option) has no effect with a statistics file; leave it out.")
        }
        try Terminal.show(StatisticsText.text(of: CalibrationStatistics(checkpoint)), pages: pager)
      } else if let mask {
        let file = mask == "zeros" ? nil : try MaskFile(path: mask)
        if tensor == nil { return try MaskInspection(checkpoint: checkpoint, mask: file).print(json: json) }
        try DenseInspection(file?.applied(to: checkpoint) ?? checkpoint).print(
          tensor: tensor, spectrum: spectrum, json: json, lines: lines, pages: pager)
      } else {
        for notice in checkpoint.notices { warn(notice) }
        try DenseInspection(checkpoint).print(
          tensor: tensor, spectrum: spectrum, json: json, lines: lines, pages: pager)
      }
    }
  }
}
