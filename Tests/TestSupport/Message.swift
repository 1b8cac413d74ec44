/// The message of the error that `body` throws; `nil` when it throws none.
package func message<Result>(of body: () throws -> Result) -> String? {
  do {
    _ = try body()
    return nil
  } catch {
    return "\(error)"
  }
}
