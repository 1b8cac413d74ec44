import Testing

@testable import LinearAlgebra

struct BLASKernelsTests {
  @Test(arguments: [
    ("Prescott", 64, "SkylakeX"), ("Prescott", 32, "Haswell"), ("Haswell", 64, "SkylakeX"),
    ("Sandybridge", 32, "Haswell"),
  ])
  func widerVectorsAreFound(chosen: String, vectorBytes: Int, expected: String) {
    #expect(BLASKernels.coreType(betterThan: chosen, vectorBytes: vectorBytes) == expected)
  }

  @Test(arguments: [
    ("Prescott", 0), ("Haswell", 32), ("Zen", 32), ("SkylakeX", 64), ("Cooperlake", 64), ("NEOVERSEN1", 0),
  ])
  func whatOpenBLASChoseWellIsLeft(chosen: String, vectorBytes: Int) {
    #expect(BLASKernels.coreType(betterThan: chosen, vectorBytes: vectorBytes) == nil)
  }
}
