import ArgumentParser
import Conversion
import Recipes

/// What of the matrices counts.
struct MaskOptions: ParsableArguments, RecipeOptions {
  @Option(
    help: ArgumentHelp(
      "Decompose W ⊙ M, and weight errors by what M keeps: 'zeros' for a model that is sparse already, or a file with a tensor of "
        + "zeros and ones (BOOL, U8 or floating-point) under the name of each matrix, of its shape. With --calibration a file decides "
        + "what is decomposed and the statistics weight errors.", valueName: "zeros|m.safetensors"))
  var mask: String?

  @Option(
    help: ArgumentHelp(
      "How M weights errors: sides (each row and column by how many of its elements are kept, which has a best factorisation) or "
        + "elements (those that are kept alone, refined from there; what is masked may become anything). Default: sides.",
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
