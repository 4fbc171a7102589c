PARTS: list[object] = []
