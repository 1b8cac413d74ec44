import Checkpoints
import Squeezing
import TensorNetworks

extension ConversionRecipe: Codable {
  enum CodingKeys: String, RecipeMember {
    case selection, links
    case sharedCentres = "shared_centres"
    case ties, budget, structure, depth, criterion
    case minimumBond = "minimum_bond"
    case alignment, gauge, metric, mask, basis, spaces, dtype, central, encodings, pack

    var allowed: String {
      switch self {
      case .selection: "a mapping of \(TensorSelection.CodingKeys.names.joined(separator: ", "))"
      case .links: "a list of mappings of \(LinkRule.CodingKeys.names.joined(separator: ", "))"
      case .sharedCentres:
        "a list of mappings of \(SharedCentreRule.CodingKeys.names.joined(separator: ", "))"
      case .ties: "a list of globs"
      case .budget: "a mapping of one of \(Budget.CodingKeys.names.joined(separator: ", "))"
      case .structure: MatrixStructure.choices
      case .depth: "a whole number from 2 to 16"
      case .criterion: SqueezeCriterion.choices
      case .minimumBond: "a whole number of at least 1"
      case .alignment: "auto or a whole number from 1 to 128"
      case .gauge: Gauge.choices
      case .metric: "a mapping of \(StatisticsIdentity.CodingKeys.names.joined(separator: ", "))"
      case .mask: "a mapping of \(MaskRule.CodingKeys.names.joined(separator: ", "))"
      case .basis: BasisChoice.choices
      case .spaces: "a list of mappings of \(SpaceRule.CodingKeys.names.joined(separator: ", "))"
      case .dtype: "f64, f32, f16 or bf16"
      case .central: CentralEncoding.choices
      case .encodings: "a list of mappings of \(EncodingRule.CodingKeys.names.joined(separator: ", "))"
      case .pack: "true or false"
      }
    }

    var members: (any RecipeMember.Type)? {
      switch self {
      case .selection: TensorSelection.CodingKeys.self
      case .links: LinkRule.CodingKeys.self
      case .sharedCentres: SharedCentreRule.CodingKeys.self
      case .spaces: SpaceRule.CodingKeys.self
      case .encodings: EncodingRule.CodingKeys.self
      case .budget: Budget.CodingKeys.self
      case .metric: StatisticsIdentity.CodingKeys.self
      case .mask: MaskRule.CodingKeys.self
      default: nil
      }
    }
  }

  /// Absent members have their defaults; an absent structure is what `chooseStructure` makes of the others.
  /// - Throws: `DecodingError` with the path of the member that is wrong.
  public init(from decoder: any Decoder) throws {
    self.init()
    let container = try decoder.container(keyedBy: CodingKeys.self)
    selection = try container.decode(.selection, default: selection)
    links = try container.decode(.links, default: links)
    sharedCentres = try container.decode(.sharedCentres, default: sharedCentres)
    ties = try container.decode(.ties, default: ties)
    budget = try container.decodeIfPresent(.budget)
    structure = try container.decode(.structure, default: structure)
    depth = try container.decode(.depth, default: depth) { (2...16).contains($0) }
    criterion = try container.decode(.criterion, default: criterion)
    minimumBond = try container.decode(.minimumBond, default: minimumBond) { $0 >= 1 }
    alignment = try container.decode(.alignment, default: alignment)
    gauge = try container.decode(.gauge, default: gauge)
    metric = try container.decodeIfPresent(.metric)
    mask = try container.decodeIfPresent(.mask)
    basis = try container.decode(.basis, default: basis)
    spaces = try container.decode(.spaces, default: spaces)
    dtype = try container.decodeIfPresent(.dtype, as: String.self) { DType(coreName: $0) != nil }
      .flatMap(DType.init(coreName:))
    central = try container.decodeIfPresent(.central)
    encodings = try container.decode(.encodings, default: encodings)
    pack = try container.decode(.pack, default: pack)
    var given = Set(container.allKeys.map(\.stringValue))
    if let members = try? container.nestedContainer(keyedBy: TensorSelection.CodingKeys.self, forKey: .selection) {
      given.formUnion(members.allKeys.map { "selection.\($0.stringValue)" })
    }
    chooseStructure(given: given)
  }

  /// All members that have a value, defaults included.
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(selection, forKey: .selection)
    try container.encode(links, forKey: .links)
    try container.encode(sharedCentres, forKey: .sharedCentres)
    try container.encode(ties, forKey: .ties)
    try container.encodeIfPresent(budget, forKey: .budget)
    try container.encode(structure, forKey: .structure)
    try container.encode(depth, forKey: .depth)
    try container.encode(criterion, forKey: .criterion)
    try container.encode(minimumBond, forKey: .minimumBond)
    try container.encode(alignment, forKey: .alignment)
    try container.encode(gauge, forKey: .gauge)
    try container.encodeIfPresent(metric, forKey: .metric)
    try container.encodeIfPresent(mask, forKey: .mask)
    try container.encode(basis, forKey: .basis)
    if !spaces.isEmpty { try container.encode(spaces, forKey: .spaces) }
    try container.encodeIfPresent(dtype?.rawValue.lowercased(), forKey: .dtype)
    try container.encodeIfPresent(central, forKey: .central)
    if !encodings.isEmpty { try container.encode(encodings, forKey: .encodings) }
    try container.encode(pack, forKey: .pack)
  }
}

extension DType {
  /// A dtype that cores may have, in either case.
  init?(coreName: String) {
    self.init(rawValue: coreName.uppercased())
    guard isDecomposable else { return nil }
  }
}
