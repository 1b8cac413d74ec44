import Testing

@testable import Reports

@Suite struct NetworkMapTests {
  @Test func `a layer is a row, and what layers have in common a column`() {
    let map = NetworkMap([
      "embeddings.word.weight", "encoder.layer.0.attention.query.weight",
      "encoder.layer.0.output.weight",
      "encoder.layer.10.output.weight", "encoder.layer.2.attention.query.weight",
      "pooler.dense.weight",
    ])
    #expect(map.blocks.map(\.title) == ["", "encoder.layer.*"])
    #expect(map.blocks[0].rows.map(\.title) == ["embeddings.word", "pooler.dense"])
    #expect(map.blocks[0].rows.map(\.cells) == [[0], [5]])
    #expect(map.blocks[1].columns == ["attention.query", "output"])
    #expect(
      map.blocks[1].rows.map(\.title) == ["encoder.layer.0", "encoder.layer.2", "encoder.layer.10"])
    #expect(map.blocks[1].rows.map(\.cells) == [[1, 2], [4, nil], [nil, 3]])
    #expect(
      map.kinds == [
        "embeddings.word", "attention.query", "output", "output", "attention.query", "pooler.dense",
      ])
  }

  @Test func `names of Keras have their numbers behind a line`() {
    let map = NetworkMap([
      "layers/block_1/attention/query/kernel", "layers/block_2/attention/query/kernel",
      "layers/dense/vars/0",
    ])
    #expect(map.blocks.map(\.title) == ["layers/block_*", ""])
    #expect(map.blocks[0].columns == ["attention/query"] && map.blocks[0].rows.count == 2)
    #expect(map.blocks[1].rows.map(\.title) == ["layers/dense"])
  }

  @Test func `a layer that is named twice is one row of one column`() {
    let map = NetworkMap(["w/dense_1/dense_1/kernel:0", "w/dense_2/dense_2/kernel:0"])
    #expect(map.blocks.count == 1 && map.blocks[0].columns.count == 1)
    #expect(map.blocks[0].rows.map(\.title) == ["w/dense_1", "w/dense_2"])
  }

  @Test func `every matrix has one cell`() {
    let names = [
      "0.weight", "1.weight", "a.1.b.2.c", "a.1.b.3.c", "", "weight", "a.1.b.2.c.weight", "a/1",
      "a..1..b",
    ]
    let cells = NetworkMap(names).blocks.flatMap { $0.rows.flatMap { $0.cells.compactMap(\.self) } }
    #expect(cells.sorted() == Array(names.indices).filter { cells.contains($0) })
    #expect(cells.count >= names.count - 1)
  }
}
