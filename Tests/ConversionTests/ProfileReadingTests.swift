import Checkpoints
import Foundation
import Recipes
import Squeezing
import TestSupport
import Testing

@testable import Conversion

@Suite struct ProfileReadingTests {
  private func profile(_ change: (inout ConversionRecipe) -> Void = { _ in }) throws -> StageFile.Profile {
    let source = try openDenseCheckpoint(at: fixtures + "/tiny-bert")
    var recipe = ConversionRecipe()
    change(&recipe)
    let pipeline = try ConversionPipeline(
      source, recipe: recipe, options: ConversionOptions(jobs: 2, generator: "tests"))
    return StageFile.Profile(
      source: source.path, part: SourceNetwork.Part(index: 1, count: 3), recipe: recipe, sourceDType: .bf16,
      network: try pipeline.profile())
  }

  @Test func `a profile read a matrix at a time is the one that was written`() throws {
    let profile = try profile()
    let bytes = try StageFile.encode(profile)
    let read = try bytes.withUnsafeBytes { try StageFile.readProfile($0, path: "p") }
    let decoded = try StageFile.decode(
      bytes, as: StageFile.Profile.self, format: StageFile.Profile.formatName, path: "p")
    for found in [read, decoded] {
      #expect(found.network == profile.network && found.recipe == profile.recipe && found.part == profile.part)
      #expect(found.source == profile.source && found.sourceDType == profile.sourceDType)
    }
    #expect(try StageFile.encode(read) == bytes)
  }

  @Test(arguments: ["", "{", "{}", "[1]", #"{"format":"mpo-plan","version":2}"#])
  func `what is not a profile is refused`(text: String) {
    expectFailure("p.json", "is not what 'mpo profile' writes") {
      _ = try Array(text.utf8).withUnsafeBytes { try StageFile.readProfile($0, path: "p.json") }
    }
  }

  @Test func `a damaged profile and one of another version are told apart`() throws {
    let text = String(decoding: try StageFile.encode(profile()), as: UTF8.self)
    func read(_ text: String) throws {
      _ = try Array(text.utf8).withUnsafeBytes { try StageFile.readProfile($0, path: "p.json") }
    }
    expectFailure("p.json", "is damaged") {
      try read(text.replacingOccurrences(of: #""norm":"#, with: #""norm":"x","y":"#))
    }
    expectFailure("p.json", "has version 3", "update it") {
      try read(text.replacingOccurrences(of: #""version":2"#, with: #""version":3"#))
    }
  }
}
