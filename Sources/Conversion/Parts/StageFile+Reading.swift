import Checkpoints
import Files
import FoundationEssentials
import Recipes
import Squeezing
import TensorNetworks

extension StageFile {
  /// Reads what the stage `profile` wrote, a matrix at a time: beside the numbers themselves it takes no memory, whatever the size
  /// of the file.
  ///
  /// - Throws: `ConversionError.stageFile` for what is not such a file.
  public static func readProfile(_ bytes: UnsafeRawBufferPointer, path: String) throws -> Profile {
    if let profile = try? ProfileReader.read(bytes) { return profile }
    // What is wrong with it is said by the decoder of small files.
    let profile = try decode(Array(bytes), as: Profile.self, format: Profile.formatName, path: path)
    return profile
  }
}

/// A reader of the file of a profile.
private struct ProfileReader {
  /// Why a file is left to the decoder of small files.
  private struct Unexpected: Error {}

  /// There are few different ones.
  private var splits: [[UInt8]: MatrixSplit] = [:]

  static func read(_ bytes: UnsafeRawBufferPointer) throws -> StageFile.Profile {
    var own = ProfileReader()
    return try JSONReader.read(bytes) { try own.read(&$0, bytes) }
  }

  private mutating func read(
    _ reader: inout JSONReader, _ bytes: UnsafeRawBufferPointer
  ) throws -> StageFile.Profile {
    var format: String?
    var version: Int64?
    var source: String?
    var part: SourceNetwork.Part?
    var recipe: ConversionRecipe?
    var dtype: DType?
    var network: NetworkProfile?
    try reader.readObject { reader, name in
      switch name {
      case "format": format = try reader.readString()
      case "version": version = try reader.readInteger()
      case "source": source = try reader.readString()
      case "part": part = try Self.decode(&reader, bytes)
      case "recipe": recipe = try Self.decode(&reader, bytes)
      case "source_dtype": dtype = try Self.decode(&reader, bytes)
      case "network": network = try self.network(&reader, bytes)
      default: throw Unexpected()
      }
    }
    guard format == StageFile.Profile.formatName, version == Int64(StageFile.version), let source, let recipe,
      let network
    else { throw Unexpected() }
    return StageFile.Profile(source: source, part: part, recipe: recipe, sourceDType: dtype, network: network)
  }

  /// A value that is small, or rare.
  private static func decode<Value: Decodable>(
    _ reader: inout JSONReader, _ bytes: UnsafeRawBufferPointer
  ) throws -> Value {
    let start = reader.offset
    try reader.skipValue()
    return try JSONDecoder().decode(Value.self, from: Data(bytes[start..<reader.offset]))
  }

  private mutating func network(
    _ reader: inout JSONReader, _ bytes: UnsafeRawBufferPointer
  ) throws -> NetworkProfile {
    var parameters: Int64?
    var tied: Int64?
    var basis: Int64?
    var layers: [LayerProfile]?
    var links: [LinkProfile]?
    var centres: [SharedCentre]?
    var (byteCount, tiedBytes): (Int64?, Int64?)
    try reader.readObject { reader, name in
      switch name {
      case "parameters": parameters = try reader.readInteger()
      case "tied_parameters": tied = try reader.readInteger()
      case "basis_parameters": basis = try reader.readInteger()
      case "links": links = try Self.decode(&reader, bytes)
      case "bytes": byteCount = try reader.readInteger()
      case "tied_bytes": tiedBytes = try reader.readInteger()
      case "centres": centres = try Self.decode(&reader, bytes)
      case "layers":
        var found: [LayerProfile] = []
        try reader.readArray { reader, _ in found.append(try self.layer(&reader, bytes)) }
        layers = found
      default: throw Unexpected()
      }
    }
    guard let parameters, let tied, let layers else { throw Unexpected() }
    return NetworkProfile(
      parameters: Int(parameters), tiedParameters: Int(tied), basisParameters: basis.map(Int.init), layers: layers,
      links: links, centres: centres, bytes: byteCount.map(Int.init), tiedBytes: tiedBytes.map(Int.init))
  }

  private mutating func layer(_ reader: inout JSONReader, _ bytes: UnsafeRawBufferPointer) throws -> LayerProfile {
    var name: String?
    var split: MatrixSplit?
    var norm: Double?
    var spectra: SingularSpectra?
    var basisSpectra: SingularSpectra?
    var values: [Double]?
    var metricValues: [Double]?
    var storage: LayerProfile.Storage?
    try reader.readObject { reader, member in
      switch member {
      case "name": name = try reader.readString()
      case "norm": norm = try reader.readNumber()
      case "split":
        let start = reader.offset
        try reader.skipValue()
        let text = Array(bytes[start..<reader.offset])
        split = try splits[text] ?? JSONDecoder().decode(MatrixSplit.self, from: Data(text))
        splits[text] = split
      case "storage": storage = try Self.decode(&reader, bytes)
      case "spectra": spectra = try Self.spectra(&reader)
      case "basis_spectra": basisSpectra = try Self.spectra(&reader)
      case "singular_values": values = try Self.numbers(&reader)
      case "metric_singular_values": metricValues = try Self.numbers(&reader)
      default: throw Unexpected()
      }
    }
    guard let name, let split, let norm else { throw Unexpected() }
    return LayerProfile(
      name: name, split: split, norm: norm, spectra: spectra, singularValues: values,
      metricSingularValues: metricValues, basisSpectra: basisSpectra, storage: storage)
  }

  private static func spectra(_ reader: inout JSONReader) throws -> SingularSpectra {
    var result: [[Double]]?
    try reader.readObject { reader, member in
      guard member == "spectra" else { return try reader.skipValue() }
      var spectra: [[Double]] = []
      try reader.readArray { reader, _ in spectra.append(try numbers(&reader)) }
      result = spectra
    }
    guard let result else { throw Unexpected() }
    return SingularSpectra(result)
  }

  private static func numbers(_ reader: inout JSONReader) throws -> [Double] {
    var result: [Double] = []
    try reader.readArray { reader, _ in result.append(try reader.readNumber()) }
    return result
  }
}
