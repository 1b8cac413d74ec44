import CLinux
import Glibc

/// How many processors a process may use: fewer than the machine has, on a cluster or in a container.
public struct ProcessorCount: Sendable {
  private let variable: @Sendable (String) -> String?
  /// Where `/proc` and `/sys` are.
  private let root: String

  /// The processors of this process.
  public init() { self.init(root: "") { name in getenv(name).map { String(cString: $0) } } }

  package init(root: String, variable: @escaping @Sendable (String) -> String?) {
    (self.root, self.variable) = (root, variable)
  }

  /// What Slurm has given to each task of a job; else the quota of the control group; else the processors that the process is
  /// bound to.
  public var available: Int {
    if let count = variable("SLURM_CPUS_PER_TASK").flatMap({ Int($0) }), count > 0 { return count }
    let bound = boundProcessors
    return quota.map { max(1, min(bound, Int($0.rounded(.up)))) } ?? bound
  }

  private var boundProcessors: Int {
    let count = Int(mpo_processor_count())
    return count > 0 ? count : max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
  }

  /// The least quota, in processors, of the control group and of those around it; nil for none.
  private var quota: Double? {
    guard let groups = text("/proc/self/cgroup") else { return nil }
    var quotas: [Double] = []
    for line in groups.split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard parts.count == 3 else { continue }
      let isUnified = parts[0] == "0" && parts[1].isEmpty
      guard isUnified || parts[1].split(separator: ",").contains("cpu") else { continue }
      var path = String(parts[2])
      while true {
        let folder = (isUnified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu") + (path == "/" ? "" : path)
        if let quota = isUnified ? unifiedQuota(folder) : separateQuota(folder) { quotas.append(quota) }
        if path == "/" || path.isEmpty { break }
        path = parentFolder(of: path)
      }
    }
    return quotas.min()
  }

  /// Of version 2: `max 100000` or `50000 100000`.
  private func unifiedQuota(_ folder: String) -> Double? {
    let numbers = text(folder + "/cpu.max")?.split(whereSeparator: \.isWhitespace).map { Double($0) } ?? []
    guard numbers.count == 2, let time = numbers[0], let period = numbers[1], time > 0, period > 0 else { return nil }
    return time / period
  }

  /// Of version 1; -1 for no quota.
  private func separateQuota(_ folder: String) -> Double? {
    func number(_ name: String) -> Double? {
      text(folder + "/" + name)?.split(whereSeparator: \.isWhitespace).first.flatMap { Double($0) }
    }
    guard let time = number("cpu.cfs_quota_us"), let period = number("cpu.cfs_period_us"), time > 0, period > 0 else {
      return nil
    }
    return time / period
  }

  /// The beginning of a small file; nil where it can't be read. Files of `/proc` do not know their size.
  private func text(_ path: String) -> String? {
    guard let descriptor = try? Posix.open(root + path, O_RDONLY) else { return nil }
    defer { Posix.close(descriptor) }
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 14, alignment: 16)
    defer { buffer.deallocate() }
    guard let count = try? Posix.read(descriptor, into: buffer) else { return nil }
    return String(decoding: UnsafeRawBufferPointer(rebasing: buffer[..<count]), as: UTF8.self)
  }
}
