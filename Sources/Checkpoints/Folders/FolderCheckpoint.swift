/// A model folder open for reading: its weights, in one or several components, and the files beside them.
struct FolderCheckpoint: DenseCheckpoint {
  let path: String
  let tensors: [TensorInfo]
  let components: [CheckpointComponent]
  let companions: [String]
  let folder: String?
  let notices: [String]

  /// Where each tensor of `tensors` is: the component, and what it is there.
  private let places: [(component: Int, tensor: TensorInfo)]
  /// Index into `tensors`, by name.
  private let indices: [TensorName: Int]

  /// - Parameters:
  ///   - components: At least one.
  ///   - folder: The model folder; nil for an index that was given by itself.
  /// - Throws: `CheckpointError` for a tensor that is in two components.
  init(
    path: String, folder: String?, components: [CheckpointComponent], companions: [String], notices: [String]
  ) throws {
    var tensors: [TensorInfo] = []
    var places: [(component: Int, tensor: TensorInfo)] = []
    var indices: [TensorName: Int] = [:]
    for (number, component) in components.enumerated() {
      for tensor in component.checkpoint.tensors {
        let name = component.prefix + tensor.name
        if let other = indices.updateValue(tensors.count, forKey: TensorName(name)) {
          throw CheckpointError.malformed(
            file: path, tensor: name,
            reason: "it is in '\(components[places[other].component].file)' and in '\(component.file)'")
        }
        tensors.append(
          component.prefix.isEmpty
            ? tensor
            : TensorInfo(name: name, dtype: tensor.dtype, shape: tensor.shape, orientation: tensor.orientation))
        places.append((number, tensor))
      }
    }
    self.path = path
    self.folder = folder
    self.tensors = tensors
    self.components = components
    self.companions = companions
    self.notices = notices
    self.places = places
    self.indices = indices
  }

  /// The only component; nil where there are several.
  private var only: (any DenseCheckpoint)? { components.count == 1 ? components[0].checkpoint : nil }

  var format: CheckpointFormat { components[0].checkpoint.format }
  var files: [String] { components.flatMap(\.checkpoint.files) }
  var metadata: CheckpointMetadata { only?.metadata ?? [:] }
  var skeletonName: String? { only?.skeletonName }
  func writeSkeleton(to path: String) throws { try only?.writeSkeleton(to: path) }

  func tensor(named name: String) -> TensorInfo? { indices[TensorName(name)].map { tensors[$0] } }

  func withBytes<Result>(
    of tensor: TensorInfo, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    let place = try place(of: tensor)
    return try components[place.component].checkpoint.withBytes(of: place.tensor, body)
  }

  func withBytes<Result>(
    of tensor: TensorInfo, in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    let place = try place(of: tensor)
    return try components[place.component].checkpoint.withBytes(of: place.tensor, in: range, body)
  }

  private func place(of tensor: TensorInfo) throws -> (component: Int, tensor: TensorInfo) {
    guard let index = indices[tensor.key], tensors[index] == tensor else {
      throw CheckpointError.noSuchTensor(tensor, in: path)
    }
    return places[index]
  }
}
