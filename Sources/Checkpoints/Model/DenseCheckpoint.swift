/// A dense checkpoint open for reading: named tensors, wherever their bytes are.
///
/// Safe to use from several threads at once.
public protocol DenseCheckpoint: Sendable {
  /// The path it was opened by, for messages.
  var path: String { get }
  /// The file format it was read from.
  var format: CheckpointFormat { get }
  /// The files that hold the tensors, in the order of their names.
  var files: [String] { get }
  /// Every tensor, in the order of storage.
  var tensors: [TensorInfo] { get }
  /// Text that the writer attached to the whole checkpoint (`__metadata__` of safetensors).
  var metadata: CheckpointMetadata { get }
  /// Paths of the files beside the weights that make up a model folder: configuration, tokenizer, …
  /// relative to `folder`; empty when the checkpoint is a lone file.
  var companions: [String] { get }
  /// The model folder, when it was opened as one.
  var folder: String? { get }
  /// The weights of the model folder, in the order of `tensors`; empty where it was not opened as one.
  var components: [CheckpointComponent] { get }
  /// What was left out or ignored when it was opened, each a sentence without a full stop.
  var notices: [String] { get }

  /// Calls `body` with the tensor's bytes, little-endian, row-major. The buffer is valid during the call only;
  /// memory that was taken for it is given back at the end.
  /// - Throws: `CheckpointError` and `FileError` where the bytes can't be read; what `body` throws.
  func withBytes<Result>(
    of tensor: TensorInfo, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result

  /// Calls `body` with a range of the tensor's bytes (`range` counts from its first byte), so that a tensor can be
  /// worked through in blocks.
  /// - Throws: `CheckpointError` for a range outside of the tensor, and where the bytes can't be read; what `body`
  ///   throws.
  func withBytes<Result>(
    of tensor: TensorInfo, in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result

  /// The tensor of that name; `nil` where there is none.
  func tensor(named name: String) -> TensorInfo?

  /// The name, in a folder, of a file with everything of this checkpoint but the elements of its tensors, for formats
  /// that hold more than tensors; `nil` for others. Its ending says what it is.
  var skeletonName: String? { get }

  /// Writes that file, which is emptied if it is there; nothing where the checkpoint has no `skeletonName`.
  /// - Throws: `CheckpointError` and `FileError` where it can't be written.
  func writeSkeleton(to path: String) throws
}

extension DenseCheckpoint {
  /// Takes the range out of the whole tensor; formats that can read a part alone do better.
  /// - Throws: `CheckpointError` for a range outside of the tensor, and where the bytes can't be read; what `body`
  ///   throws.
  public func withBytes<Result>(
    of tensor: TensorInfo, in range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) throws -> Result {
    try withBytes(of: tensor) { bytes in
      guard range.lowerBound >= 0, range.upperBound <= bytes.count else {
        throw CheckpointError.rangeOutside(tensor, range, of: path)
      }
      return try body(UnsafeRawBufferPointer(rebasing: bytes[range]))
    }
  }

  /// Looks through all tensors, in O(`tensors.count`).
  public func tensor(named name: String) -> TensorInfo? {
    let key = TensorName(name)
    return tensors.first { $0.key == key }
  }

  /// None: a lone file.
  public var companions: [String] { [] }
  /// None: a lone file.
  public var folder: String? { nil }
  /// None: a lone file.
  public var components: [CheckpointComponent] { [] }
  /// Nothing.
  public var notices: [String] { [] }
  /// None, for a format that holds nothing but tensors and text.
  public var skeletonName: String? { nil }

  /// Writes nothing, as there is no skeleton.
  /// - Throws: `CheckpointError` and `FileError` where it can't be written.
  public func writeSkeleton(to path: String) throws {}
}

extension CheckpointError {
  /// The error for a range of bytes that a tensor does not have.
  static func rangeOutside(_ tensor: TensorInfo, _ range: Range<Int>, of path: String) -> CheckpointError {
    .malformed(
      file: path, tensor: tensor.name,
      reason: "bytes \(range.lowerBound)..<\(range.upperBound) were asked for, but it has \(tensor.byteCount)")
  }

  /// The error for a tensor that the checkpoint does not have in that shape and type.
  static func noSuchTensor(_ tensor: TensorInfo, in path: String) -> CheckpointError {
    .malformed(
      file: path, tensor: tensor.name, reason: "this checkpoint has no such tensor of \(tensor.dtype.rawValue)")
  }
}

/// A dense checkpoint being written: all tensors are declared when it is created, their bytes arrive in any order
/// and from any thread.
public protocol DenseCheckpointWriter: Sendable {
  /// Writes the whole of one declared tensor (little-endian, row-major).
  /// - Throws: `CheckpointError` for a tensor that was not declared, was written before, or has another size;
  ///   `FileError` where it can't be written.
  func write(_ bytes: UnsafeRawBufferPointer, to name: String) throws
  /// Checks that every declared tensor was written, and flushes everything to the disk.
  /// - Throws: `CheckpointError` for a tensor that was not written; `FileError` where the disk refuses.
  func finish() throws
}

extension DenseCheckpoint {
  /// Calls `body` with the tensor's elements as `Float`, row-major; F32 that is aligned in the file is not copied.
  ///
  /// - Throws: `CheckpointError` where the tensor is not floating point, or an F64 element does not fit.
  public func withFloats<Result>(
    of tensor: TensorInfo, _ body: (UnsafeBufferPointer<Float>) throws -> Result
  ) throws -> Result {
    try withBytes(of: tensor) { bytes in
      try naming(tensor) { try TensorElements.withFloats(of: bytes, tensor.dtype, body) }
    }
  }

  /// Calls `body` with the tensor's elements as `Double`, row-major.
  ///
  /// - Throws: `CheckpointError` where the tensor is not floating point.
  public func withDoubles<Result>(
    of tensor: TensorInfo, _ body: (UnsafeBufferPointer<Double>) throws -> Result
  ) throws -> Result {
    try withBytes(of: tensor) { bytes in
      try naming(tensor) { try TensorElements.withDoubles(of: bytes, tensor.dtype, body) }
    }
  }

  private func naming<Result>(_ tensor: TensorInfo, _ convert: () throws -> Result) throws -> Result {
    do {
      return try convert()
    } catch let error as ElementError {
      throw CheckpointError.unsupported(file: path, tensor: tensor.name, reason: error.description)
    }
  }
}
