import ArgumentParser
import Checkpoints
import Conversion
import Files
import Glibc
import Recipes
import Squeezing
import TensorNetworks

/// Writes a profile of a model whose weights are not there, in so many parts: singular values fall as those of trained networks
/// do, a little differently in each matrix.
struct Shapes: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "profile-of-shapes")

  @Argument var model: String
  /// The folder for K-of-N.json.
  @Option var output: String
  @Option var parts = 1
  @Option var ratio = 0.5

  func run() throws {
    let source = try openDenseCheckpoint(at: model)
    var recipe = ConversionRecipe()
    recipe.budget = .ratio(ratio)
    recipe.structure = .svd
    let network = try SourceNetwork(source, selection: recipe.selection)
    let layers = network.matrices.enumerated().map { index, matrix in
      let count = min(matrix.rows, matrix.columns)
      let exponent = 0.25 + 0.3 * Double(index * 7919 % 1000) / 1000
      let values = (0..<count).map { 1 / pow(Double($0 + 1), exponent) }
      return LayerProfile(
        name: matrix.name, split: MatrixSplit(rows: matrix.rows, columns: matrix.columns, shape: matrix.shape),
        norm: values.reduce(0) { $0 + $1 * $1 }.squareRoot(), singularValues: values)
    }
    for part in 1...parts {
      let own = layers.enumerated().filter { $0.offset % parts == part - 1 }.map(\.element)
      let profile = StageFile.Profile(
        source: model, part: SourceNetwork.Part(index: part, count: parts), recipe: recipe,
        sourceDType: source.tensors.contains { $0.dtype == .bf16 } ? .bf16 : nil,
        network: NetworkProfile(
          parameters: source.tensors.reduce(0) { $0 + $1.elementCount }, tiedParameters: 0, layers: own))
      try StageFile.encode(profile).withUnsafeBytes { try writeFile($0, to: output + "/\(part)-of-\(parts).json") }
    }
  }
}
