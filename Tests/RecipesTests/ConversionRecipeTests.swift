import Checkpoints
import Foundation
import Squeezing
import TensorNetworks
import Testing

@testable import Recipes

@Suite struct ConversionRecipeTests {
  /// A recipe with no default left.
  static let full: ConversionRecipe = {
    var recipe = ConversionRecipe()
    recipe.selection.include = ["*.weight"]
    recipe.selection.exclude = ["emb*", "x: y #", "5", "true", "~", "a\\b\"'\u{1}\n/é"]
    recipe.selection.convolutions = true
    recipe.selection.experts = false
    recipe.selection.sites = 3
    if let shape = try? MPOShape(rowFactors: [8, 16], columnFactors: [16, 8]) {
      recipe.selection.shapes = [TensorSelection.ShapeRule(glob: "*.query.weight", shape: shape)]
    }
    recipe.links = [
      LinkRule(glob: "*.{q,k}.weight"), LinkRule(glob: "*.up.weight", layers: 2, shares: .inputs),
    ]
    recipe.sharedCentres = [SharedCentreRule(glob: "*.v.weight", centres: 2, residualRank: 8)]
    recipe.ties = ["*.key.weight", "*"]
    recipe.budget = .matrixRatio(0.1 + 0.2)
    recipe.structure = .auto
    recipe.minimumBond = 4
    recipe.alignment = .multiples(of: 16)
    recipe.gauge = .spectral
    recipe.metric = StatisticsIdentity(
      sha256: String(repeating: "0a", count: 32), description: "täglich: 12 # Sätze", inputRidge: 1e-5, outputRidge: 0)
    recipe.mask = MaskRule(source: .file(sha256: String(repeating: "0c", count: 32)))
    recipe.dtype = .bf16
    recipe.central = .int8
    recipe.pack = true
    return recipe
  }()

  static let budgets: [Budget] = [.ratio(0.6), .ratio(1), .matrixRatio(0.25), .maximumError(1e-7), .bond(8), .lossless]

  @Test func `a recipe is the same after JSON and after YAML`() throws {
    for recipe in [ConversionRecipe(), Self.full] {
      let json = try JSONEncoder().encode(recipe)
      #expect(try JSONDecoder().decode(ConversionRecipe.self, from: json) == recipe)
      #expect(try ConversionRecipe(yaml: recipe.yaml(), path: "r.yaml") == recipe)
      #expect(try ConversionRecipe(yaml: String(decoding: json, as: UTF8.self), path: "r.json") == recipe)
    }
  }

  @Test(arguments: budgets) func `every budget is the same after YAML`(budget: Budget) throws {
    var recipe = ConversionRecipe()
    recipe.budget = budget
    #expect(try ConversionRecipe(yaml: recipe.yaml(), path: "r.yaml") == recipe)
  }

  @Test func `a recipe is written in full, in the order of its members`() throws {
    let text = try Self.full.yaml()
    #expect(
      text == """
        selection:
          include: ['*.weight']
          exclude: [emb*, 'x: y #', "5", "true", "~", "a\\\\b\\"'\\x01\\n/é"]
          convolutions: true
          experts: false
          sites: 3
          shapes:
          - glob: '*.query.weight'
            row_factors: [8, 16]
            column_factors: [16, 8]
        links:
        - glob: '*.{q,k}.weight'
        - glob: '*.up.weight'
          layers: 2
          shares: inputs
        shared_centres:
        - glob: '*.v.weight'
          centres: 2
          residual_rank: 8
        ties: ['*.key.weight', '*']
        budget:
          matrix_ratio: 0.30000000000000004
        structure: auto
        depth: 2
        criterion: error-per-parameter
        minimum_bond: 4
        alignment: 16
        gauge: spectral
        metric:
          statistics_sha256: \(String(repeating: "0a", count: 32))
          description: 'täglich: 12 # Sätze'
          input_ridge: 1e-05
          output_ridge: 0
        mask:
          source: \(String(repeating: "0c", count: 32))
          weights: sides
        basis: auto
        dtype: bf16
        central: int8
        pack: true

        """)
    let defaults = try ConversionRecipe().yaml()
    for line in [
      "structure: auto", "minimum_bond: 1", "alignment: auto", "gauge: compact", "pack: false", "  sites: 5",
      "  include: []",
    ] {
      #expect(defaults.contains("\(line)\n"), "\(defaults)")
    }
  }

  @Test func `absent members have their defaults`() throws {
    for text in ["", "# nothing\n", "{}", "selection: {}", "selection:\n", "dtype: ~"] {
      #expect(try ConversionRecipe(yaml: text, path: "") == ConversionRecipe())
    }
    let recipe = try ConversionRecipe(yaml: "budget: {ratio: 1}\nselection: {sites: 7}\ndtype: BF16", path: "")
    var expected = ConversionRecipe()
    expected.budget = .ratio(1)
    (expected.selection.sites, expected.structure) = (7, .chain)
    expected.dtype = .bf16
    #expect(recipe == expected)
  }

  @Test func `a member that is not known is ignored in a manifest`() throws {
    let text = #"{"structure": "svd", "unknown": ["*"], "budget": {"ratio": 0.5, "x": 1}, "selection": {"bases": 3}}"#
    let recipe = try JSONDecoder().decode(ConversionRecipe.self, from: Data(text.utf8))
    #expect(recipe.structure == .svd && recipe.budget == .ratio(0.5))
  }

  // MARK: - What is wrong with a file

  private func error(_ yaml: String) -> String {
    do {
      return "no error: \(try ConversionRecipe(yaml: yaml, path: "r.yaml"))"
    } catch {
      return "\(error)"
    }
  }

  @Test(arguments: [
    ("structure: svd\nstucture: svd", "line 2", "'stucture'", "'structure'"),
    ("max-error: 0.1", "line 1", "'max-error'", "'budget.max_error'"),
    ("budget:\n  ratoi: 0.5", "line 2", "'budget.ratoi'", "'budget.ratio'"),
    ("sites: 3", "line 1", "'sites'", "'selection.sites'"),
    ("ratio: 0.5", "line 1", "'ratio'", "'budget.ratio'"),
    ("Pack: true", "line 1", "'Pack'", "'pack'"),
    ("tie: ['*']", "line 1", "'tie'", "'ties'"),
    (
      "selection:\n  shapes:\n  - {glob: '*', row_factor: [2, 2], column_factors: [2, 2]}", "line 3",
      "'selection.shapes.row_factor'",
      "'selection.shapes.row_factors'"
    ),
    ("metric: {sha256: a}", "line 1", "'metric.sha256'", "'metric."),
  ])
  func `a misspelt member is an error that names the nearest right one`(
    text: String, line: String, member: String, nearest: String
  ) {
    let message = error(text)
    for part in ["r.yaml, \(line): ", member, "the nearest is \(nearest)"] {
      #expect(message.contains(part), "'\(part)' is not in: \(message)")
    }
  }

  @Test(arguments: [
    ("structure: mpo", 1, "'structure' must be chain, svd or auto"),
    ("structure: [svd]", 1, "'structure' must be chain, svd or auto"),
    ("\ngauge: 3", 2, "'gauge' must be compact, canonical or spectral"),
    ("criterion: luck", 1, "'criterion' must be error-per-parameter or error"),
    ("minimum_bond: 0", 1, "'minimum_bond' must be a whole number of at least 1"),
    ("alignment: 0", 1, "'alignment' must be auto or a whole number from 1 to 128"),
    ("alignment: 129", 1, "'alignment' must be auto or"), ("alignment: fast", 1, "'alignment' must be auto or"),
    ("mask: zeros", 1, "'mask' must be a mapping of source, weights"),
    ("mask: {source: ones}", 1, "'mask.source' must be 'zeros', or the SHA-256"),
    ("mask: {weights: sides}", 1, "'mask.source' must be 'zeros', or the SHA-256"),
    ("mask: {source: zeros, weights: rows}", 1, "'mask.weights' must be sides or elements"),
    ("shared_centres:\n- {glob: a, residual_rank: 0}", 2, "'shared_centres.residual_rank' must be a whole number"),
    ("minimum_bond: 1.5", 1, "'minimum_bond' must be a whole number"),
    ("pack: maybe", 1, "'pack' must be true or false"), ("dtype: i8", 1, "'dtype' must be f64, f32, f16 or bf16"),
    ("dtype: f8_e4m3", 1, "'dtype' must be f64"), ("central: int4", 1, "'central' must be int8"),
    ("ties: '*'", 1, "'ties' must be a list of globs"), ("ties: [[a]]", 1, "'ties' must be a list of globs"),
    ("selection: 5", 1, "'selection' must be a mapping of include, exclude"),
    ("selection:\n  sites: 17", 2, "'selection.sites' must be a whole number from 2 to 16"),
    ("selection: {sites: 1}", 1, "'selection.sites' must be"),
    ("selection: {include: {a: b}}", 1, "'selection.include' must be a list of globs"),
    ("selection:\n  shapes:\n  - glob: a", 3, "'selection.shapes.row_factors' must be a list of factors"),
    (
      "selection:\n  shapes:\n  - {glob: a, row_factors: [2, 2], column_factors: [2]}", 3,
      "'selection.shapes.row_factors' must be a list of factors"
    ),
    ("budget: 0.5", 1, "'budget' must be a mapping of one of ratio"),
    ("budget: {}", 1, "'budget' must be a mapping of one of"),
    ("budget: {ratio: 0.5, bond: 8}", 1, "'budget' must be a mapping of one of"),
    ("budget:\n  ratio: 0", 2, "'budget.ratio' must be a number above 0"),
    ("budget: {matrix_ratio: 0}", 1, "'budget.matrix_ratio' must be a number above 0"),
    ("budget: {ratio: 0.5, matrix_ratio: 0.5}", 1, "'budget' must be a mapping of one of"),
    ("selection: {experts: 4}", 1, "'selection.experts' must be true or false"),
    ("budget: {ratio: half}", 1, "'budget.ratio'"),
    ("budget: {ratio: .nan}", 1, "'budget.ratio' must be"), ("budget: {max_error: 1}", 1, "'budget.max_error' must be"),
    ("budget: {bond: 0}", 1, "'budget.bond' must be"),
    ("budget: {lossless: false}", 1, "'budget.lossless' must be true"),
    ("metric: {}", 1, "'metric.statistics_sha256' must be the SHA-256"),
    ("metric: {statistics_sha256: abc}", 1, "'metric.statistics_sha256' must be the SHA-256"),
    (
      "metric:\n  statistics_sha256: \(String(repeating: "a", count: 64))\n  input_ridge: -1", 3,
      "'metric.input_ridge' must be a number of at least 0"
    ),
  ])
  func `a wrong value names the member, its line and what is allowed`(text: String, line: Int, reason: String) {
    let message = error(text)
    #expect(message.hasPrefix("r.yaml, line \(line): "), "\(message)")
    #expect(message.contains(reason), "\(message)")
  }

  @Test(arguments: ["[", "a: b: c", "ties: *weight", "a\nb: c", "\t- x", "pack: true\npack: true", "'"])
  func `what is not YAML is refused`(text: String) {
    #expect(error(text).hasPrefix("r.yaml, line ") && error(text).contains("is not YAML"), "\(error(text))")
  }

  @Test(arguments: [
    ("ties: &all ['*']\nselection: {include: *all}", 1), ("ties:\n- &a x", 2), ("? [&a-1 x]\n: 1", 1), ("&_ {}", 1),
  ])
  func `an anchor is refused, as its aliases can multiply`(text: String, line: Int) {
    let message = error(text)
    #expect(message.contains("r.yaml, line \(line): ") && message.contains("a recipe has no anchors"), "\(message)")
  }

  @Test(arguments: ["a&b", "a & b", "a.*&b", "' & '", "-&b"])
  func `an ampersand in a name is not an anchor`(name: String) throws {
    let recipe = try ConversionRecipe(yaml: "ties: ['x', \(name)]", path: "r.yaml")
    #expect(recipe.ties.count == 2, "\(recipe.ties)")
  }

  @Test(arguments: ["5", "- a", "text"])
  func `what is not a mapping is refused`(text: String) {
    #expect(error(text).contains("a recipe is a mapping"), "\(error(text))")
  }

  // MARK: - Members that do not go together

  @Test(arguments: [
    ("{budget: {lossless: true}, criterion: error}", "'criterion' has no effect with 'budget.lossless'"),
    ("{budget: {bond: 8}, criterion: error}", "'criterion' has no effect with 'budget.bond'"),
    (
      "{budget: {ratio: 0.5}, criterion: error, structure: svd}", "'criterion' error has no effect with 'structure' svd"
    ),
    (
      "{budget: {ratio: 0.5}, criterion: error, metric: {statistics_sha256: \(String(repeating: "a", count: 64))}}",
      "'criterion' error has no effect with 'metric'"
    ),
    ("{budget: {lossless: true}, mask: {source: zeros}}", "'mask' has no effect with 'budget.lossless'"),
    (
      "{budget: {ratio: 0.5}, mask: {source: zeros}, metric: {statistics_sha256: \(String(repeating: "a", count: 64))}}",
      "'mask' zeros has no effect with 'metric'"
    ),
    ("{budget: {bond: 6}, minimum_bond: 8}", "'budget.bond' 6 is below 'minimum_bond' 8"),
    ("{budget: {lossless: true}, alignment: 8}", "'alignment' has no effect with 'budget.lossless'"),
    ("{budget: {ratio: 0.5}, structure: chain, alignment: 1}", "'alignment' 1 has no effect with 'structure' chain"),
    ("{structure: svd, selection: {sites: 3}}", "'selection.sites' has no effect with 'structure' svd"),
    (
      "{structure: svd, selection: {shapes: [{glob: a, row_factors: [2, 2], column_factors: [2, 2]}]}}",
      "'selection.shapes' has no effect with 'structure' svd"
    ),
  ])
  func `a member without effect is refused`(text: String, reason: String) {
    #expect(error(text).contains(reason), "\(error(text))")
  }

  @Test(arguments: [
    ("selection: {sites: 5}", MatrixStructure.chain), ("{selection: {sites: 3}, structure: auto}", .auto),
    ("selection: {shapes: [{glob: a, row_factors: [2, 2], column_factors: [2, 2]}]}", .chain),
    ("selection: {include: [a]}", .auto), ("budget: {bond: 4}", .chain), ("budget: {lossless: true}", .auto),
    ("budget: {ratio: 0.5}", .auto), ("{budget: {ratio: 0.5}, criterion: error}", .chain),
    ("{budget: {bond: 4}, structure: svd}", .svd),
  ])
  func `a structure that is not said is the chain where something is that only chains have`(
    text: String, structure: MatrixStructure
  ) throws {
    #expect(try ConversionRecipe(yaml: text, path: "").structure == structure)
  }

  @Test func `what is written down must have an effect even as a default`() throws {
    var recipe = ConversionRecipe()
    recipe.budget = .bond(8)
    #expect(recipe.conflict() == nil)
    #expect(
      recipe.conflict(given: ["criterion"])
        == .noEffect(member: "criterion", value: nil, beside: "budget.bond", itsValue: nil))
    #expect(
      recipe.conflict(given: ["structure"])
        == .noEffect(member: "structure", value: "auto", beside: "budget.bond", itsValue: nil))
    recipe.budget = .ratio(0.5)
    #expect(recipe.conflict(given: ["criterion", "selection.sites"]) == nil)
    recipe.structure = .svd
    #expect(recipe.conflict(given: ["criterion"]) == nil && recipe.conflict(given: ["selection.sites"]) != nil)
    #expect(Self.full.conflict() == nil)
  }

  @Test func `bases are for chains in a metric, where something is lost`() {
    var recipe = ConversionRecipe()
    recipe.budget = .ratio(0.5)
    (recipe.structure, recipe.basis) = (.chain, .none)
    #expect(recipe.conflict() == .noEffectWithout(member: "basis", missing: "metric"))
    recipe.metric = StatisticsIdentity(sha256: String(repeating: "0", count: 64))
    #expect(recipe.conflict() == nil && !recipe.usesBases)
    recipe.basis = .auto
    #expect(recipe.conflict(given: ["basis"]) == nil && recipe.usesBases)
    recipe.spaces = [SpaceRule(glob: "*.mix", side: .inputs, space: "stream")]
    #expect(recipe.conflict() == nil)
    recipe.basis = .none
    #expect(recipe.conflict() == .noEffect(member: "spaces", value: nil, beside: "basis", itsValue: "none"))
    (recipe.basis, recipe.spaces) = (.auto, [])
    recipe.budget = .lossless
    #expect(
      recipe.conflict(given: ["basis"])
        == .noEffect(member: "basis", value: nil, beside: "budget.lossless", itsValue: nil))
    #expect(recipe.conflict() == nil && !recipe.usesBases)
    (recipe.budget, recipe.structure) = (.ratio(0.5), .svd)
    #expect(
      recipe.conflict(given: ["basis"]) == .noEffect(member: "basis", value: nil, beside: "structure", itsValue: "svd"))
    #expect(!recipe.usesBases)
  }

  @Test(arguments: [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ratio", "ratoi", 2), ("a", "b", 1)])
  func `the edit distance is Levenshtein's`(a: String, b: String, distance: Int) {
    #expect(editDistance(a, b) == distance && editDistance(b, a) == distance)
  }

  // MARK: - Differences

  @Test func `the difference of two recipes is the member and both values`() throws {
    let plain = ConversionRecipe()
    #expect(plain.difference(from: plain, path: "a", otherPath: "b") == nil)
    var other = plain
    other.structure = .svd
    #expect(
      other.difference(from: plain, path: "a", otherPath: "b")?.description
        == "a was made with 'structure' svd, b with 'structure' auto")
    other = plain
    other.budget = .ratio(0.5)
    #expect(
      other.difference(from: plain, path: "a", otherPath: "b")?.description
        == "a was made with 'budget.ratio' 0.5, b without 'budget.ratio'")
    other = plain
    other.ties = ["a b"]
    var split = plain
    split.ties = ["a", "b"]
    #expect(other.difference(from: split, path: "a", otherPath: "b")?.value == #"["a b"]"#)
  }

  @Test func `what statistics say of themselves is not a difference`() {
    var other = Self.full
    other.metric?.description = nil
    #expect(other.difference(from: Self.full, path: "a", otherPath: "b") == nil)
    other.metric?.inputRidge = nil
    #expect(other.difference(from: Self.full, path: "a", otherPath: "b")?.member == "metric.input_ridge")
  }
}
