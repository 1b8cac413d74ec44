/// What a part of a conversion takes, reckoned from the sizes of its matrices: good to a factor of two.
public struct PartCost: Sendable {
  /// Operations of what is done one after the other where `jobs` matrices are worked on at the same time.
  public struct Stage: Sendable {
    /// How many are decomposed, or profiled.
    public let matrices: Int
    /// All operations.
    public let operations: Double
    /// Operations of the thread that has the most.
    let longest: Double
    /// Bytes that are read, and written.
    public let bytesMoved: Int
    /// What the matrices need that are worked on at the same time.
    let memory: Int

    init(_ costs: [(operations: Double, memory: Int)], bytesMoved: Int, jobs: Int) {
      matrices = costs.count
      operations = costs.reduce(0) { $0 + $1.operations }
      longest = BalancedParts(of: costs.map(\.operations), count: jobs).loads.max() ?? 0
      memory = costs.map(\.memory).sorted(by: >).prefix(jobs).reduce(0, +)
      self.bytesMoved = bytesMoved
    }

    /// - Parameter rate: operations in a second of one thread.
    public func seconds(rate: Double) -> Double {
      longest / max(1, rate) + Double(bytesMoved) / ConversionCost.bytesPerSecond
    }

    /// The same if all threads were busy all the time.
    public func seconds(rate: Double, jobs: Int) -> Double {
      operations / (max(1, rate) * Double(max(1, jobs))) + Double(bytesMoved) / ConversionCost.bytesPerSecond
    }
  }

  /// From 1.
  public let index: Int
  /// Of the part's profile.
  public let profile: Stage
  /// Of its decomposition and writing.
  public let conversion: Stage

  /// The memory at the peak of either stage, in bytes.
  public var memory: Int { ConversionCost.ownBytes + max(profile.memory, conversion.memory) }
}
