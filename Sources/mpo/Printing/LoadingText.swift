import Checkpoints
import Files
import MPOCheckpoints
import Reports

/// How people go on with an MPO checkpoint, for reports and cards.
enum LoadingText {
  static func steps(of manifest: CheckpointManifest, at path: String) -> [LoadingStep] {
    let plain = path.utf8.allSatisfy {
      UInt8(ascii: "a")...UInt8(ascii: "z") ~= $0 | 0x20 || "0123456789._/-".utf8.contains($0)
    }
    let word = plain ? path : RecipeCommand.quoted(path)
    let text = jsonString(path)
    var steps = [
      LoadingStep(
        "Make a dense checkpoint that any program loads", language: "sh",
        code: "mpo restore \(word) -o restored\(ending(of: manifest))"),
      LoadingStep(
        "Check files and checksums, and measure the errors again", language: "sh",
        code: "mpo verify \(word) --against MODEL"),
    ]
    if manifest.companions.contains(where: { $0.file == "config.json" }) {
      steps.append(
        LoadingStep(
          "Load a transformers model whose layers are made of cores, to run or to fine-tune", language: "python",
          code:
            "from mpo_checkpoint import from_pretrained\nmodel = from_pretrained(\(text), trainable=\"auxiliary\")")
      )
    }
    if manifest.companions.contains(where: { $0.file == RemoteCode.fileName }) {
      steps.append(
        LoadingStep(
          "The same without the package mpo_checkpoint, with the code in the folder; read that code first",
          language: "python",
          code:
            "from transformers import AutoModel\nmodel = AutoModel.from_pretrained(\(text), trust_remote_code=True)"))
    }
    steps.append(
      LoadingStep(
        "Load all tensors as NumPy arrays", language: "python",
        code: "from mpo_checkpoint import load_dense\narrays = load_dense(\(text))"))
    return steps
  }

  /// The ending that the restored file needs; none for a folder.
  private static func ending(of manifest: CheckpointManifest) -> String {
    guard let source = manifest.source, source.components == nil, source.files.count == 1,
      let dot = source.files[0].file.utf8.lastIndex(of: UInt8(ascii: "."))
    else { return "" }
    let ending = String(source.files[0].file[dot...])
    return [".safetensors", ".h5", ".hdf5", ".keras"].contains(ending) ? ending : ""
  }
}
