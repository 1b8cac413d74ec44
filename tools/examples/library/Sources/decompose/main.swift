import Checkpoints
import Files
import Foundation
import LinearAlgebra
import MPOCheckpoints
import TensorNetworks

guard CommandLine.arguments.count == 4 else {
  print("usage: decompose MODEL TENSOR OUTPUT.mpo")
  exit(64)
}
let (model, name, output) = (CommandLine.arguments[1], CommandLine.arguments[2], CommandLine.arguments[3])

// Read: a safetensors, HDF5 or Keras file, the index of shards, or the folder of a model.
let source = try openDenseCheckpoint(at: model)
guard let tensor = source.tensor(named: name), tensor.shape.count == 2, tensor.dtype.isDecomposable else {
  print("\(model) has no floating-point matrix '\(name)'")
  exit(1)
}
let (rows, columns) = (tensor.shape[0], tensor.shape[1])
print("\(name): \(tensor.dtype.rawValue), \(rows) × \(columns)")

// Decompose: five sites, balanced factors, and some bond dimensions.
let shape = MPOShape.automatic(rows: rows, columns: columns, sites: 5)
print("factors \(shape), full bonds \(shape.fullBonds)")
let chosen = try source.withFloats(of: tensor) { elements in
  let matrix = MatrixView(elements, rows: rows, columns: columns)
  let spectra = try SingularSpectra(of: matrix, shape: shape)
  print("entropies", spectra.entanglementEntropies.map { String(format: "%.2f", $0) }.joined(separator: " "))
  var mpo: MPO<Float>?
  for bond in [64, 32, 16, 8] {
    let bonds = shape.bonds(ofRank: bond)
    let candidate = try MPO(decomposing: matrix, shape: shape, bonds: bonds)
    let ratio = Double(shape.storedCount(bonds: bonds, gauge: .compact)) / Double(rows * columns)
    let bound = spectra.squaredErrorBound(bonds: bonds).squareRoot() / spectra.norm
    let error = candidate.relativeError(to: matrix)
    print("bonds \(bonds): ratio \(String(format: "%.3f, error %.3f, at most %.3f", ratio, error, bound))")
    if bond == 32 { mpo = candidate }
  }
  return mpo
}
guard let chosen else { exit(1) }

// Write: an MPO checkpoint of this tensor alone, in the gauge without a redundant number.
let gauged = try chosen.gauged(.compact)
let (record, cores) = OperatorRecord.ordinary(
  name: name, MatrixSplit(rows: rows, columns: columns, shape: shape), bonds: gauged.mpo.bonds, gauge: .compact,
  dtype: .f32)
var contents = CheckpointContents()
contents.append(
  TensorRecord(
    name: name, dtype: tensor.dtype, shape: tensor.shape, orientation: tensor.orientation,
    storage: .blocks(BlockMatrix(whole: record))),
  operators: [record], cores: cores)
let folder = try AtomicOutput(at: output, kind: .folder, replacing: true)
let writer = try MPOCheckpointWriter(folder: folder.temporaryPath, contents: contents)
_ = try writer.write(gauged, of: record)
try writer.finish(generator: "decompose", source: nil, conversion: nil)
try folder.commit()

// Read it again.
let checkpoint = try MPOCheckpoint(path: output)
let restored = try checkpoint.matrix(checkpoint.operator(name), as: Float.self)
let difference = try source.withFloats(of: tensor) { elements in
  let expected = MatrixView(elements, rows: rows, columns: columns)
  let squared = zip(expected.elements, restored.elements).reduce(0.0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
  return squared.squareRoot() / expected.norm
}
print("stored \(checkpoint.contents.cores.map { "\($0.shape)" }.joined(separator: " "))")
print("restored with the error \(String(format: "%.3f", difference))")
