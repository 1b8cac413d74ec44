import Testing

@testable import MPOCheckpoints

@Suite struct LoaderConfigurationTests {
  private func announced(_ text: String) -> String? {
    Array(text.utf8).withUnsafeBytes { LoaderConfiguration.announcing($0) }.map { String(decoding: $0, as: UTF8.self) }
  }

  private func naming(_ text: String) -> String? {
    Array(text.utf8).withUnsafeBytes { LoaderConfiguration.namingCode($0) }.map { String(decoding: $0, as: UTF8.self) }
  }

  private func plain(_ text: String) -> String? {
    Array(text.utf8).withUnsafeBytes { LoaderConfiguration.withoutAnnouncement($0) }
      .map { String(decoding: $0, as: UTF8.self) }
  }

  @Test(arguments: [
    "{\n  \"model_type\": \"bert\",\n  \"hidden_size\": 64\n}\n", "{\"model_type\":\"bert\"}",
    "\u{FEFF} {\r\n\t\"a\": {\"model_type\": 1}, \"model_type\": \"x\"}",
  ])
  func `a configuration is announced, and comes back byte for byte`(text: String) throws {
    let announced = try #require(self.announced(text))
    #expect(announced.contains("{\"quant_method\": \"mpo\", \"format_version\": \"2.0\"}"))
    #expect(self.announced(announced) == nil, "only once")
    #expect(plain(announced)?.utf8.elementsEqual(text.utf8) == true)
    let named = try #require(naming(announced))
    #expect(named.contains("\"auto_map\": {\"AutoConfig\": \"mpo_remote_code.MPOAutoConfig\"}"))
    #expect(naming(named) == nil && naming(text) == nil, "only of an announced one, only once")
    #expect(plain(named)?.utf8.elementsEqual(text.utf8) == true)
  }

  @Test func `the members of a model's own code stay`() throws {
    let text = "{\"auto_map\": {\"AutoConfig\": \"own.Config\"}, \"model_type\": \"x\"}"
    let announced = try #require(self.announced(text))
    #expect(naming(announced) == nil)
    #expect(plain(announced) == text)
  }

  @Test func `the member is taken out wherever it is`() {
    let member = "\"quantization_config\": {\"format_version\": \"2.0\", \"quant_method\": \"mpo\"}"
    #expect(plain("{\"a\": 1, \(member), \"model_type\": \"x\"}") == "{\"a\": 1, \"model_type\": \"x\"}")
    #expect(plain("{\"model_type\": \"x\",\n \(member)\n}") == "{\"model_type\": \"x\"\n}")
    #expect(plain("{\(member)}") == "{}")
  }

  @Test(arguments: [
    "", "[]", "{}", "{\"model_type\": 1}", "{\"a\": {\"model_type\": \"x\"}}", "{\"model_type\": \"x\"",
    "{\"model_type\": \"x\", \"quantization_config\": {\"quant_method\": \"gptq\"}}",
  ])
  func `any other text stays unchanged`(text: String) {
    #expect(announced(text) == nil && plain(text) == nil)
  }
}
