import TestSupport
import Testing

@testable import Files

@Suite struct ProcessorCountTests {
  private let temporary: TemporaryFolder

  init() throws { temporary = try TemporaryFolder() }

  private func count(_ variables: [String: String] = [:]) -> Int {
    ProcessorCount(root: temporary.path) { variables[$0] }.available
  }

  @Test func `what Slurm gives to a task counts most`() throws {
    let bound = count()
    #expect(bound >= 1)
    #expect(count(["SLURM_CPUS_PER_TASK": "7"]) == 7)
    #expect(count(["SLURM_CPUS_PER_TASK": "x"]) == bound && count(["SLURM_CPUS_PER_TASK": "0"]) == bound)
  }

  @Test(arguments: [("50000 100000", 1), ("max 100000", nil), ("nonsense", nil), ("0 0", nil), ("", nil)])
  func `the quota of a control group counts, and of those around it`(quota: String, expected: Int?) throws {
    let bound = count()
    try temporary.write("0::/a/b\n", to: "proc/self/cgroup")
    try temporary.write("max 100000\n", to: "sys/fs/cgroup/a/b/cpu.max")
    #expect(count() == bound)
    try temporary.write(quota + "\n", to: "sys/fs/cgroup/a/cpu.max")
    #expect(count() == expected ?? bound)
  }

  @Test func `control groups of version 1 count too`() throws {
    let bound = count()
    try temporary.write("3:cpuset:/x\n4:cpu,cpuacct:/a\n", to: "proc/self/cgroup")
    try temporary.write("100000\n", to: "sys/fs/cgroup/cpu/a/cpu.cfs_period_us")
    try temporary.write("-1\n", to: "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us")
    #expect(count() == bound)
    try temporary.write("100000\n", to: "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us")
    #expect(count() == 1)
    // No more than the machine has.
    try temporary.write("100000000\n", to: "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us")
    #expect(count() == bound)
  }
}
