// swift-tools-version: 6.1
import PackageDescription

let package = Package(
  name: "mpo",
  products: [
    .executable(name: "mpo", targets: ["mpo"]),
    .library(
      name: "MPO",
      targets: [
        "LinearAlgebra", "TensorNetworks", "Checkpoints", "MPOCheckpoints", "Squeezing", "Recipes", "Conversion",
      ]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
  ],
  targets: [
    .systemLibrary(name: "CHDF5", pkgConfig: "hdf5", providers: [.apt(["libhdf5-dev"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(name: "CZip", pkgConfig: "libzip", providers: [.apt(["libzip-dev"])]),
    .systemLibrary(
      name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev", "liblapacke-dev"])]),
    .target(name: "CLinux"),

    .target(
      name: "LinearAlgebra", dependencies: ["COpenBLAS"],
      linkerSettings: [.linkedLibrary("lapacke")]),
    .target(name: "TensorNetworks", dependencies: ["LinearAlgebra"]),
    .target(
      name: "Checkpoints",
      dependencies: [
        "CHDF5", "CLinux", "CZip", "CZlib",
        .product(name: "Crypto", package: "swift-crypto"),
        .product(name: "OrderedCollections", package: "swift-collections"),
      ]),
    .target(
      name: "MPOCheckpoints", dependencies: ["CZlib", "Checkpoints", "LinearAlgebra", "Recipes", "TensorNetworks"], exclude: ["FORMAT.md"]),
    .target(
      name: "Squeezing",
      dependencies: ["TensorNetworks", .product(name: "HeapModule", package: "swift-collections")]),
    .target(
      name: "Recipes",
      dependencies: ["Checkpoints", "Squeezing", "TensorNetworks", .product(name: "Yams", package: "Yams")]),
    .target(name: "Conversion", dependencies: ["MPOCheckpoints", "Recipes", "Squeezing"]),
    .executableTarget(
      name: "mpo",
      dependencies: [
        "Conversion", "LinearAlgebra", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    .executableTarget(
      name: "mpo-bench",
      dependencies: [
        "Conversion", "LinearAlgebra", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),

    .executableTarget(
      name: "mpo-fuzz",
      dependencies: [
        "CLibFuzzer", "Conversion", "LinearAlgebra", "TestSupport",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Crypto", package: "swift-crypto"),
      ]),
    .systemLibrary(name: "CLibFuzzer"),

    .target(name: "TestSupport", path: "Tests/TestSupport"),
    .testTarget(name: "LinearAlgebraTests", dependencies: ["LinearAlgebra", "TestSupport"]),
    .testTarget(name: "TensorNetworksTests", dependencies: ["TensorNetworks", "TestSupport"]),
    .testTarget(name: "CheckpointsTests", dependencies: ["Checkpoints", "TestSupport"]),
    .testTarget(name: "MPOCheckpointsTests", dependencies: ["MPOCheckpoints", "Recipes", "Squeezing", "TestSupport"]),
    .testTarget(name: "SqueezingTests", dependencies: ["Squeezing", "TestSupport"]),
    .testTarget(name: "RecipesTests", dependencies: ["Recipes", "TestSupport"]),
    .testTarget(name: "ConversionTests", dependencies: ["Conversion", "TestSupport"]),
    .testTarget(
      name: "MPOToolTests", dependencies: ["mpo", "Checkpoints", "MPOCheckpoints", "Recipes", "TestSupport"]),
  ],
  swiftLanguageModes: [.v6]
)
