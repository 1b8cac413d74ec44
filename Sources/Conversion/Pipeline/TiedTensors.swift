import Checkpoints

/// Tensors that are the same bytes as an earlier one, as tied embeddings are.
enum TiedTensors {
  /// Smaller tensors, and vectors, may well be equal by accident.
  private static let minimumElements = 4096
  private static let sampleByteCount = 4096

  /// For every tensor whose bytes, dtype and shape are those of an earlier tensor: that tensor.
  static func find(in checkpoint: any DenseCheckpoint) throws -> [TensorName: TensorInfo] {
    struct Key: Hashable {
      let dtype: DType
      let shape: [Int]
    }
    // What stays as it is must not be taken from what does not.
    let kept = KeptTensors(checkpoint.tensors, ModelConfiguration(of: checkpoint))
    let large = checkpoint.tensors.filter {
      $0.shape.count >= 2 && $0.elementCount >= minimumElements && kept.reason(for: $0) == nil
    }
    var ties: [TensorName: TensorInfo] = [:]
    for (_, alike) in Dictionary(grouping: large, by: { Key(dtype: $0.dtype, shape: $0.shape) })
    where alike.count > 1 {
      var samples: [[UInt8]: [TensorInfo]] = [:]
      for tensor in alike {
        let sample = try checkpoint.withBytes(of: tensor, in: 0..<min(sampleByteCount, tensor.byteCount)) { Array($0) }
        // What has not been trained yet is equal without being tied.
        if sample.allSatisfy({ $0 == sample[0] }) { continue }
        if let earlier = try samples[sample, default: []].first(where: { try isEqual($0, tensor, in: checkpoint) }) {
          ties[tensor.key] = earlier
        } else {
          samples[sample, default: []].append(tensor)
        }
      }
    }
    return ties
  }

  private static func isEqual(_ a: TensorInfo, _ b: TensorInfo, in checkpoint: any DenseCheckpoint) throws -> Bool {
    let blockSize = 1 << 22
    for start in stride(from: 0, to: a.byteCount, by: blockSize) {
      let range = start..<min(start + blockSize, a.byteCount)
      let isEqual = try checkpoint.withBytes(of: a, in: range) { x in
        try checkpoint.withBytes(of: b, in: range) { y in x.elementsEqual(y) }
      }
      if !isEqual { return false }
    }
    return true
  }
}
