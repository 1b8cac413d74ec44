import ArgumentParser
import Conversion
import Recipes

/// What of the matrices counts.
struct MaskOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "Decompose W ⊙ M, and weight errors by what M keeps. zeros: M is 0 where the matrix is 0, for a sparse model. A file: safetensors "
        + "with a tensor of zeros and ones (BOOL, U8 or floating-point) for each matrix, under its name and of its shape. With --calibration "
        + "the file decides what is decomposed, and the statistics weight the errors.", valueName: "zeros|m.safetensors"
    ))
  var mask: String?

  @Option(
    help: ArgumentHelp(
      "How M weights errors: sides (each row and each column by the number of its kept elements; the best factorisation is known) or "
        + "elements (only kept elements count; the others may become anything, and factors are found by iteration). Default: sides.",
      valueName: "w"))
  var maskWeights: MaskRule.Weights?

  func validate() throws {
    if maskWeights != nil, mask == nil { throw ValidationError("--mask-weights goes with --mask.") }
  }

  private var isOfZeros: Bool { mask == "zeros" }

  /// A file is needed whatever the recipe says.
  var given: [String] { [isOfZeros ? "mask" : nil, maskWeights.map { _ in "mask.weights" }].compactMap(\.self) }

  /// The recipe of a file gets its SHA-256 where that is read.
  func write(to recipe: inout ConversionRecipe) {
    guard mask != nil else { return }
    recipe.mask = MaskRule(source: isOfZeros ? .zeros : .file(sha256: ""), weights: maskWeights ?? .sides)
  }

  /// Of the file; nil where the mask is none.
  var path: String? { isOfZeros ? nil : mask }

  func file() throws -> MaskFile? { try path.map(MaskFile.init(path:)) }
}

extension MaskRule.Weights: ExpressibleByArgument {}
