import ArgumentParser

/// How the central cores are stored.
enum CentralCoding: String, ExpressibleByArgument, CaseIterable {
  case int8
}
