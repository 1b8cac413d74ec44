// swift-tools-version: 6.1
import PackageDescription

let package = Package(
  name: "library",
  dependencies: [.package(name: "mpo", path: "../../..")],
  targets: [.executableTarget(name: "decompose", dependencies: [.product(name: "MPO", package: "mpo")])],
  swiftLanguageModes: [.v6]
)
