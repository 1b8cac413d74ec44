// swift-tools-version: 6.1
import PackageDescription

let package = Package(
  name: "mpo",
  products: [
    .executable(name: "mpo", targets: ["mpo"]),
    .library(
      name: "MPO",
      targets: [
        "LinearAlgebra", "TensorNetworks", "Files", "Checkpoints", "MPOCheckpoints", "Squeezing", "Recipes",
        "Conversion", "Reports", "SqueezeLoop",
      ]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/hummingbird-project/swift-mustache", from: "2.1.1"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
  ],
  targets: [
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(name: "CZip", pkgConfig: "libzip", providers: [.apt(["libzip-dev"])]),
    .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
    .target(name: "CHDF5"),
    .target(name: "CLinux"),

    .target(name: "LinearAlgebra", dependencies: ["COpenBLAS"]),
    .target(name: "TensorNetworks", dependencies: ["LinearAlgebra"]),
    .target(name: "Files", dependencies: ["CLinux", .product(name: "Crypto", package: "swift-crypto")]),
    .target(name: "Checkpoints", dependencies: ["CHDF5", "CLinux", "CZip", "CZlib", "Files"]),
    .target(
      name: "MPOCheckpoints",
      dependencies: [
        "Checkpoints", "CZlib", "Files", "LinearAlgebra", "Recipes", "TensorNetworks",
        .product(name: "Crypto", package: "swift-crypto"),
      ], exclude: ["FORMAT.md"]),
    .target(
      name: "Squeezing",
      dependencies: ["TensorNetworks", .product(name: "HeapModule", package: "swift-collections")]),
    .target(
      name: "Recipes",
      dependencies: ["Checkpoints", "Files", "Squeezing", "TensorNetworks", .product(name: "Yams", package: "Yams")]),
    .target(
      name: "Conversion",
      dependencies: [
        "Checkpoints", "Files", "LinearAlgebra", "MPOCheckpoints", "Recipes", "Squeezing", "TensorNetworks",
      ]),
    .target(
      name: "Reports",
      dependencies: [
        "Checkpoints", "Conversion", "Files", "MPOCheckpoints", "Recipes", "Squeezing", "TensorNetworks",
        .product(name: "Mustache", package: "swift-mustache"),
      ]),
    .target(
      name: "SqueezeLoop",
      dependencies: [
        "Checkpoints", "Conversion", "Files", "LinearAlgebra", "MPOCheckpoints", "Recipes", "Squeezing",
        "TensorNetworks",
      ]),
    .executableTarget(
      name: "mpo",
      dependencies: [
        "Checkpoints", "Conversion", "Files", "LinearAlgebra", "MPOCheckpoints", "Recipes", "Reports", "SqueezeLoop",
        "Squeezing", "TensorNetworks", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], plugins: ["EmbedPythonPackage"]),
    .plugin(name: "EmbedPythonPackage", capability: .buildTool()),
    .executableTarget(
      name: "mpo-bench",
      dependencies: [
        "Checkpoints", "Conversion", "Files", "LinearAlgebra", "MPOCheckpoints", "Recipes", "Squeezing",
        "TensorNetworks",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),

    .executableTarget(
      name: "mpo-fuzz",
      dependencies: [
        "Checkpoints", "CLibFuzzer", "Conversion", "Files", "LinearAlgebra", "MPOCheckpoints", "Recipes", "TestSupport",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Crypto", package: "swift-crypto"),
      ]),
    .systemLibrary(name: "CLibFuzzer"),

    .target(name: "TestSupport", path: "Tests/TestSupport"),
    .testTarget(name: "LinearAlgebraTests", dependencies: ["LinearAlgebra", "TestSupport"]),
    .testTarget(name: "TensorNetworksTests", dependencies: ["LinearAlgebra", "TensorNetworks", "TestSupport"]),
    .testTarget(name: "FilesTests", dependencies: ["Files", "TestSupport"]),
    .testTarget(name: "CheckpointsTests", dependencies: ["Checkpoints", "Files", "TestSupport"]),
    .testTarget(
      name: "MPOCheckpointsTests",
      dependencies: [
        "Checkpoints", "Files", "LinearAlgebra", "MPOCheckpoints", "Recipes", "Squeezing", "TensorNetworks",
        "TestSupport",
      ]),
    .testTarget(
      name: "SqueezingTests", dependencies: ["LinearAlgebra", "Squeezing", "TensorNetworks", "TestSupport"]),
    .testTarget(
      name: "RecipesTests", dependencies: ["Checkpoints", "Recipes", "Squeezing", "TensorNetworks"]),
    .testTarget(
      name: "ConversionTests",
      dependencies: [
        "Checkpoints", "Conversion", "Files", "LinearAlgebra", "MPOCheckpoints", "Recipes", "Squeezing",
        "TensorNetworks", "TestSupport",
      ]),
    .testTarget(
      name: "ReportsTests",
      dependencies: ["Conversion", "Recipes", "Reports", "Squeezing", "TensorNetworks"]),
    .testTarget(
      name: "SqueezeLoopTests",
      dependencies: [
        "Checkpoints", "Conversion", "Files", "LinearAlgebra", "MPOCheckpoints", "Recipes", "SqueezeLoop", "Squeezing",
        "TensorNetworks", "TestSupport",
      ]),
    .testTarget(
      name: "MPOToolTests",
      dependencies: ["Checkpoints", "Files", "mpo", "MPOCheckpoints", "TensorNetworks", "TestSupport"]),
  ],
  swiftLanguageModes: [.v6]
)
