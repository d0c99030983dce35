// The best items of one user, with Go's standard library: go run ask.go http://127.0.0.1:8000 1082185 995242
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

type input struct {
	Name     string        `json:"name"`
	Datatype string        `json:"datatype"`
	Shape    []int         `json:"shape"`
	Data     []json.Number `json:"data"`
}

type request struct {
	Inputs     []input        `json:"inputs"`
	Parameters map[string]any `json:"parameters"`
}

type answer struct {
	Error   string `json:"error"`
	Outputs []struct {
		Name string        `json:"name"`
		Data []json.Number `json:"data"`
	} `json:"outputs"`
}

func main() {
	history := make([]json.Number, 0, len(os.Args))
	for _, id := range os.Args[2:] {
		history = append(history, json.Number(id))
	}
	body, err := json.Marshal(request{
		Inputs:     []input{{"behavior_item_ids", "INT64", []int{1, len(history)}, history}},
		Parameters: map[string]any{"top_k": 10, "deadline_ms": 1800},
	})
	if err != nil {
		log.Fatal(err)
	}
	client := http.Client{Timeout: 2 * time.Second} // keep it, so that requests share its connections
	response, err := client.Post(os.Args[1]+"/v2/models/nann/infer", "application/json", bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	var found answer
	if err := json.NewDecoder(response.Body).Decode(&found); err != nil {
		log.Fatal(err)
	}
	if response.StatusCode != http.StatusOK { // 503: send it again, after a wait; 400: change the request
		log.Fatalf("%d: %s", response.StatusCode, found.Error)
	}
	tensors := map[string][]json.Number{}
	for _, tensor := range found.Outputs { // their order is not fixed
		tensors[tensor.Name] = tensor.Data
	}
	for place, item := range tensors["item_ids"] {
		if item != "-1" { // padding
			fmt.Println(item, tensors["scores"][place])
		}
	}
}
