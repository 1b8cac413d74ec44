/// The least number of characters to insert, remove or replace to make one text of the other (Levenshtein).
///
/// - Complexity: O(n·m).
func editDistance(_ a: String, _ b: String) -> Int {
  let b = Array(b)
  var previous = Array(0...b.count)
  for (row, character) in a.enumerated() {
    var current = [row + 1]
    for (column, other) in b.enumerated() {
      current.append(
        min(previous[column] + (character == other ? 0 : 1), previous[column + 1] + 1, current[column] + 1))
    }
    previous = current
  }
  return previous[b.count]
}
