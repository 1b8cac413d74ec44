import Foundation
import PackagePlugin

/// Makes a Swift file of the Python package's sources, which `mpo convert --remote-code` writes into checkpoints.
@main
struct EmbedPythonPackage: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
    let tools = context.package.directoryURL.appending(path: "tools")
    let folder = tools.appending(path: "python")
    let package = folder.appending(path: "mpo_checkpoint")
    let files = (FileManager.default.enumerator(atPath: package.path)?.compactMap { $0 as? String } ?? [])
      .filter { $0.hasSuffix(".py") }.sorted().map { package.appending(path: $0) }
    let template = folder.appending(path: "remote_code.py")
    let script = tools.appending(path: "embed-python")
    let output = context.pluginWorkDirectoryURL.appending(path: "PythonPackage.swift")
    return [
      .buildCommand(
        displayName: "Embedding the Python package", executable: URL(filePath: "/bin/sh"),
        arguments: ([script, output, folder, template] + files).map(\.path), inputFiles: [script, template] + files,
        outputFiles: [output])
    ]
  }
}
