// What the programs beside this tell: one JSON object a line.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

var out sync.Mutex

func tell(values map[string]any) {
	out.Lock()
	defer out.Unlock()
	line, _ := json.Marshal(values)
	fmt.Println(string(line))
}

func must(err error) {
	if err != nil {
		tell(map[string]any{"error": err.Error()})
		os.Exit(1)
	}
}
