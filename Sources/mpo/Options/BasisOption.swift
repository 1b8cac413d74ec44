import ArgumentParser
import Recipes

/// What `--basis` takes: a choice for all chains, or the space of some matrices' sides.
enum BasisOption: ExpressibleByArgument {
  case choice(BasisChoice)
  case rule(SpaceRule)

  init?(argument: String) {
    if let choice = BasisChoice(rawValue: argument) {
      self = .choice(choice)
      return
    }
    guard let place = argument.lastIndex(of: "="), place != argument.startIndex else { return nil }
    let words = argument[argument.index(after: place)...].split(separator: ":", omittingEmptySubsequences: false)
    guard let name = words.last.map(String.init), words.count <= 2, SpaceRule.isName(name) else { return nil }
    var side: LinkRule.Side?
    if words.count == 2 {
      side = LinkRule.Side(rawValue: String(words[0]))
      if side == nil { return nil }
    }
    self = .rule(SpaceRule(glob: String(argument[..<place]), side: side, space: name))
  }

  var choice: BasisChoice? { if case .choice(let choice) = self { choice } else { nil } }

  var rule: SpaceRule? { if case .rule(let rule) = self { rule } else { nil } }
}
