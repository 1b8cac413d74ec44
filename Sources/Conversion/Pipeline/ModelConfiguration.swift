import Checkpoints
import Files
import MPOCheckpoints

/// What the `config.json` of a model folder says that matters to a conversion.
public struct ModelConfiguration: Sendable, Equatable {
  /// Names of classes, as `LlamaForCausalLM`.
  public var architectures: [String] = []
  /// The member `model_type` of `config.json`; nil where there is none.
  public var modelType: String?
  /// Whether weights are quantised already.
  public var isQuantized = false
  /// The numbers of experts that the layers of a mixture have.
  public var expertCounts: Set<Int> = []

  /// Says nothing.
  public init() {}

  /// Says nothing where the checkpoint is no model folder, and where its `config.json` is missing or can't be read.
  public init(of checkpoint: any DenseCheckpoint) {
    let isThere = checkpoint.companions.contains(Self.fileName)
    self = (isThere ? checkpoint.folder : nil).map(Self.init(folder:)) ?? Self()
  }

  /// - Parameter folder: a model folder, or an MPO checkpoint, which has the companions of its source.
  public init(folder: String) {
    guard let file = try? MappedFile(path: folder + "/" + Self.fileName),
      let result = try? file.withBytes(in: 0..<file.byteCount, { try Self(json: $0) })
    else {
      self.init()
      return
    }
    self = result
  }

  private static let fileName = "config.json"
  private static let expertMembers: Set<String> = ["num_local_experts", "num_experts", "n_routed_experts"]

  /// - Throws: `JSONError`.
  init(json: UnsafeRawBufferPointer) throws {
    var result = ModelConfiguration()
    try JSONReader.read(json) { try result.readMembers(&$0, isRoot: true) }
    self = result
  }

  /// The language model of a model of several kinds of data has its members in `text_config`.
  private mutating func readMembers(_ reader: inout JSONReader, isRoot: Bool) throws {
    try reader.readObject { reader, name in
      let kind = try reader.nextKind()
      switch (name, kind) {
      case ("text_config", .object) where isRoot: try readMembers(&reader, isRoot: false)
      case ("architectures", .array) where isRoot:
        try reader.readArray { reader, _ in
          if try reader.nextKind() == .string {
            architectures.append(try reader.readString())
          } else {
            try reader.skipValue()
          }
        }
      case ("quantization", .object), ("quantization_config", .object), ("compression_config", .object):
        if try !LoaderConfiguration.isOwn(&reader) { isQuantized = true }
      case ("model_type", .string):
        let type = try reader.readString()
        if isRoot || modelType == nil { modelType = type }
      case (_, .number) where Self.expertMembers.contains(name):
        if let count = Int(exactly: try reader.readNumber()), count > 0 { expertCounts.insert(count) }
      default: try reader.skipValue()
      }
    }
  }

  /// Whether the model predicts the next token of a text.
  public var isLanguageModel: Bool { architectures.contains { $0.hasSuffix("ForCausalLM") } }

  /// Which side of each stacked expert is the layer's input.
  var expertOrientation: TensorInfo.Orientation {
    ["gpt_oss", "llama4", "llama4_text"].contains(modelType) ? .inputOutput : .outputInput
  }

  /// How many matrices are stacked in a tensor, as its name or the configuration says; nil where neither does.
  package func expertCount(of tensor: TensorInfo) -> Int? {
    guard tensor.shape.count == 3 else { return nil }
    let isNamed = tensor.name.split(whereSeparator: { $0 == "." || $0 == "/" }).contains("experts")
    return isNamed || expertCounts.contains(tensor.shape[0]) ? tensor.shape[0] : nil
  }
}
